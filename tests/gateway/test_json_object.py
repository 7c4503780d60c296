"""Which bodies the gateway takes for a JSON object."""

from __future__ import annotations

import json

import pytest

from llmrouter_server.errors import DomainError
from llmrouter_server.gateway.json_object import MAX_BRACKETS, MAX_COMMAS, MAX_DEPTH, read_object


def nested(depth: int) -> bytes:
    """Return a body with so many levels."""
    return b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"messages":"\xff"}', "the body is not UTF-8: byte 13 is wrong"),
        (b'{"a":"\xed\xa0\x80"}', "the body is not UTF-8: byte 6 is wrong"),
        (b"", "the body must be a JSON object"),
        (b"[]", "the body must be a JSON object"),
        (b"null", "the body must be a JSON object"),
        (b"\xef\xbb\xbf{}", "the body must be a JSON object"),
        (b'{"a":1', "the body is not JSON: Expecting ',' or '}': line 1 column 7 (char 6)"),
        (b'{"a":1,}', "the body is not JSON: Expecting a name in double quotes: line 1 column 8 (char 7)"),
        (b'{"a" 1}', "the body is not JSON: Expecting ':': line 1 column 5 (char 4)"),
        (b'{"a":}', "the body is not JSON: Expecting value: line 1 column 6 (char 5)"),
        (b"{'a':1}", "the body is not JSON: Expecting a name in double quotes: line 1 column 2 (char 1)"),
        (b"{1:1}", "the body is not JSON: Expecting a name in double quotes: line 1 column 2 (char 1)"),
        (b"{} {}", "the body is not JSON: Extra data: line 1 column 4 (char 3)"),
        (b'{"a":1}x', "the body is not JSON: Extra data: line 1 column 8 (char 7)"),
        (b'{"model":"a","model":"a"}', '"model" is there twice in one object'),
        (b'{"model":"a","\\u006dodel":"b"}', '"model" is there twice in one object'),
        (b'{"messages":[{"role":"a","role":"b"}]}', '"role" is there twice in one object'),
        (b'{"a":[{"b":{"c":1,"d":2,"c":3}}]}', '"c" is there twice in one object'),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":[-Infinity]}', "-Infinity is not JSON"),
        (b'{"a":1e400}', "the number 1e400 is too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "the body has a number with too many digits"),
        (nested(MAX_DEPTH + 1), "the body is nested more than 64 levels deep"),
        (nested(100_000), "the body is nested more than 64 levels deep"),
        (b'{"a":' * 100_000, "the body is nested more than 64 levels deep"),
        (b'{"x":[' + b"[]," * (MAX_BRACKETS + 1) + b"1]}", "the body has too many values"),
        (b'{"x":[' + b"{}," * (MAX_BRACKETS + 1) + b"1]}", "the body has too many values"),
        (b'{"x":[' + b"1," * (MAX_COMMAS + 1) + b"1]}", "the body has too many values"),
    ],
    ids=range(28),
)
def test_a_body_that_could_be_read_in_two_ways_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(DomainError) as raised:
        read_object(body)
    assert (raised.value.reason, raised.value.message) == ("MALFORMED_REQUEST", message)


def test_the_deepest_and_the_largest_body_are_taken() -> None:
    assert read_object(nested(MAX_DEPTH)).keys() == {"x"}
    flood = b'{"x":[' + b"[]," * (MAX_BRACKETS - 1) + b'{"a":0}]}'
    assert len(read_object(flood)["x"].value) == MAX_BRACKETS  # type: ignore[arg-type]


def test_brackets_in_a_text_are_no_levels() -> None:
    text = "[" * 1000 + "{" * 1000
    assert read_object(json.dumps({"x": text}).encode())["x"].value == text


def test_a_member_keeps_how_it_was_written() -> None:
    members = read_object('{ "a" : 1.0 , "é":\n[ "\\u00e9", 1e2 ] }'.encode())
    assert {name: bytes(member.raw).decode() for name, member in members.items()} == {
        "a": '"a" : 1.0',
        "é": '"é":\n[ "\\u00e9", 1e2 ]',
    }


def test_no_members_are_none() -> None:
    assert read_object(b" { } ") == {}
