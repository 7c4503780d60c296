"""Requests of valid shape and hostile content, made from the descriptors: a new RPC is fuzzed without a line here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import strategies as st

from llmrouter_server.runtime.fields import next_page_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "line\r\nline",
    "\x1b[31mred\x1b[0m",
    "\u202eturned around",
    "\ufeffmark",
    "\uff21\uff11\uff0e",  # full width
    "\U0001d518\U0010ffff",
    "'; drop table llm_providers; --",
    "%s %n {0} {{}} ${jndi:ldap://x}",
    "../../../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "http://127.0.0.1:1/",
    "https://llm.example.com/v1",
    "http://169.254.169.254/latest",
    "day",
    "hour",
    "balanced",
    "downgrade",
    "chat",
    "2026-02-30",
    "2026-11-24",
    "0001-01-01",
    "9999-12-31",
    "sk-fuzz-0123456789abcdef",
    "now.getHours() < 24",
    "1 / input_tokens > 0",
    "[1].map(a, [a, a]).all(b, [b, b].all(c, c == b))",
    "x" * 300,
    "\U0001f600" * 2000,
    "y" * 100_000,
]
UUIDS = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "019a0000-0000-7000-8000-000000000000",
    "{6f9619ff-8b86-d011-b42d-00c04fc964ff}",
    "6F9619FF-8B86-D011-B42D-00C04FC964FF",
]
TOKENS = [
    next_page_token(*keys)
    for keys in ([0, "a"], ["a"], ["2026-01-01", 1], [2**63 - 1, "z"], ["ECO", "a", "b"], [None], [[1]], ["\u0000"])
]
INTEGERS = [0, 1, 2, 5, 6, 100, 365, 366, 500, 501, 1000, 2**31 - 1, 2**32 - 1]
DOUBLES = [0.0, -0.0, 0.1, 0.4, 1.0, 1.001, -1.0, 5e-324, 1e308, float("nan"), float("inf"), float("-inf"), 999999.9999]

JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from(DOUBLES) | st.sampled_from(TEXTS[:28]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TEXTS[:20]), inner, max_size=4),
    max_leaves=12,
)


def texts(known_ids: Sequence[str]) -> st.SearchStrategy[str]:
    """Generate texts, among them ids of things that are there."""
    ids = st.sampled_from([*known_ids, *known_ids, *UUIDS])
    free = st.text(st.characters(codec="utf-8"), max_size=40)
    return ids | st.sampled_from(TEXTS) | st.sampled_from(TOKENS) | free | st.uuids().map(str)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, known_ids: Sequence[str], depth: int = 0) -> Message:
    """Generate a message of this kind with any of its fields set."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if depth > 3 or not draw(st.booleans()):
            continue
        if field.is_repeated:
            most = draw(st.sampled_from([1, 3, 3, 30]))
            values = draw(st.lists(_value(field, known_ids, depth), max_size=most))
            target = getattr(message, field.name)
            for value in values:
                target.append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(_value(field, known_ids, depth)))
        else:
            setattr(message, field.name, draw(_value(field, known_ids, depth)))
    return message


def _value(field: FieldDescriptor, known_ids: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    return _scalar(field, known_ids) if kind is None else _inner(kind, known_ids, depth)


def _inner(kind: Descriptor, known_ids: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    if kind.full_name == "google.protobuf.Struct":
        return st.dictionaries(st.sampled_from(TEXTS[:28]), JSON, max_size=5).map(_struct) | st.just(_deep(25))
    if kind.full_name == "google.protobuf.Timestamp":
        make = message_factory.GetMessageClass(kind)
        seconds = st.sampled_from([0, -1, 1, 1_795_000_000, -62_135_596_800, 253_402_300_799, 2**63 - 1, -(2**63)])
        return st.builds(make, seconds=seconds, nanos=st.sampled_from([0, -1, 1, 999_999_999, 2**31 - 1]))
    return messages(kind, known_ids, depth + 1)


def _scalar(field: FieldDescriptor, known_ids: Sequence[str]) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return texts(known_ids)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.sampled_from(DOUBLES) | st.floats()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.integers(0, 9) | st.sampled_from([-1, 2**31 - 1])
        case _:
            return st.sampled_from(INTEGERS) | st.integers(0, 2**32 - 1)


def _struct(value: dict[str, Any]) -> Struct:
    return Struct(fields={name: _json(each) for name, each in value.items()})


def _json(value: Any) -> Value:
    """Write any JSON, and numbers that JSON lacks."""
    match value:
        case None:
            return Value(null_value=0)  # type: ignore[arg-type] # its only value
        case bool():
            return Value(bool_value=value)
        case str():
            return Value(string_value=value)
        case list():
            return Value(list_value=ListValue(values=[_json(each) for each in value]))
        case dict():
            return Value(struct_value=_struct(value))
        case _:
            return Value(number_value=value)


def _deep(levels: int) -> Struct:
    made = Struct()
    for _ in range(levels):
        made = Struct(fields={"a": Value(struct_value=made)})
    return made


BODIES = (
    JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.sampled_from(
        [
            b"",
            b"{",
            b"{}",
            b"[]",
            b"null",
            b'"x"',
            b"{}{}",
            b'{"power_level": "ECO",}',
            b'{"power_level": 1e999}',
            b'{"fallback_count": -1}',
            b'{"fallback_count": 1.5}',
            b'{"fallback_count": "3"}',
            b'{"power_level": NaN}',
            b"\xef\xbb\xbf{}",
            b"{/* no */}",
            b'{"a": ' * 500 + b"1" + b"}" * 500,
            b'{"task_type": "\\ud800"}',
            b'{"task_type": "\xff"}',
            b'{"task_type": "a", "taskType": "b"}',
            b'{"metadata": {"a": {"b": [1, {"c": null}]}}}',
            b'{"explain": true, "required_capabilities": ["chat", "x"]}',
        ]
    )
)
