"""Laws of reading a chat request: nothing is lost, nothing is read in two ways, and the bound is one."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.errors import DomainError
from llmrouter_server.gateway.chat import head_of, read_chat
from llmrouter_server.gateway.json_object import MAX_DEPTH, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter_server.gateway.json_object import Member

OURS = ("model", "allow_fallbacks", "max_tokens", "max_completion_tokens")
KNOWN = (*OURS, "messages", "stream", "stream_options", "n", "tools", "functions", "response_format", "models", "route")
LOOKS_LIKE_JSON = '{}[]",:\\/ntu0123456789eE+-.  NaInfy\n\té'

texts = st.text(st.characters(codec=None, categories=None), max_size=20)
"""Lone surrogates too."""
numbers = st.integers() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
others = st.dictionaries(texts.filter(lambda name: name.casefold() not in {*KNOWN, "preset"}), values, max_size=4)
parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}, optional={"cache_control": values}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}),
    st.fixed_dictionaries({"type": st.sampled_from(["input_audio", "file", "thinking"]), "data": values}),
    st.dictionaries(texts, values, max_size=3),
    texts,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]) | texts},
    optional={"content": st.none() | texts | st.lists(parts, max_size=3), "tool_calls": values, "name": texts},
)
known = st.fixed_dictionaries(
    {"messages": st.lists(messages, min_size=1, max_size=4)},
    optional={
        "model": st.none() | st.sampled_from(["auto", "eco", "gpt-4o"]),
        "allow_fallbacks": st.none() | st.booleans(),
        "max_tokens": st.none() | st.integers(1, 100_000),
        "max_completion_tokens": st.none() | st.integers(1, 100_000),
        "n": st.none() | st.integers(1, 128),
        "stream": st.none() | st.booleans(),
        "stream_options": st.none() | st.fixed_dictionaries({}, optional={"include_usage": st.booleans(), "x": values}),
        "tools": st.none() | st.lists(st.dictionaries(texts, values, max_size=3), max_size=3),
        "response_format": st.none() | st.fixed_dictionaries({"type": texts}, optional={"json_schema": values}),
    },
)


@st.composite
def chats(draw: st.DrawFn) -> Mapping[str, Any]:
    members = list({**draw(known), **draw(others)}.items())
    return dict(draw(st.permutations(members)))


def written(value: object, *, is_escaped: bool, indent: int | None) -> bytes:
    text = json.dumps(value, ensure_ascii=is_escaped, indent=indent)
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode()
    return json.dumps(value, indent=indent).encode()  # lone surrogates can be escaped only


@given(chats(), st.booleans(), st.sampled_from([None, 0, 2]), st.sampled_from(["max_tokens", "max_completion_tokens"]))
def test_the_provider_gets_all_of_it_but_what_is_ours(
    chat: Mapping[str, Any], is_escaped: bool, indent: int | None, max_tokens_name: str
) -> None:
    request = read_chat(written(chat, is_escaped=is_escaped, indent=indent))
    expected = {name: value for name, value in chat.items() if name not in OURS} | {"model": "a/b"}
    bounds = [bound for name in ("max_tokens", "max_completion_tokens") if (bound := chat.get(name)) is not None]
    if bounds:
        expected[max_tokens_name] = min(bounds)
    if chat.get("stream"):
        expected["stream_options"] = {**(chat.get("stream_options") or {}), "include_usage": True}
    assert json.loads(head_of("a/b", max_tokens_name, request.max_output).encode() + request.rest) == expected
    assert request.rest.startswith(b",")


def read_or_refuse(body: bytes) -> Mapping[str, Member] | None:
    with contextlib.suppress(DomainError):
        return read_object(body)
    return None


def read_strictly(text: str) -> dict[str, Any] | None:
    """Read what the standard library alone makes of it; None for what is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    def finite(digits: str) -> float:
        if math.isinf(float(digits)):
            raise ValueError
        return float(digits)

    def constant(_name: str) -> None:
        raise ValueError

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=constant)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Draw a JSON text with a few signs taken out, put in or exchanged."""
    text = json.dumps(draw(others), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(LOOKS_LIKE_JSON, max_size=2)) + text[at + draw(st.integers(0, 2)) :]
    return text.encode("utf-8", "replace").decode()


@given(damaged())
def test_a_body_is_read_as_the_standard_library_reads_it_or_not_at_all(text: str) -> None:
    members = read_or_refuse(text.encode())
    if members is None:
        assert read_strictly(text) is None
        return
    assert {name: member.value for name, member in members.items()} == read_strictly(text)
    assert json.loads(b"{" + b",".join(member.raw for member in members.values()) + b"}") == read_strictly(text)


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_the_error_is_ours(body: bytes) -> None:
    with contextlib.suppress(DomainError):
        read_chat(body)


@given(st.lists(st.sampled_from("[{"), min_size=1, max_size=2 * MAX_DEPTH), texts)
def test_exactly_so_many_levels_are_taken(brackets: list[str], leaf: str) -> None:
    nested: Any = leaf
    for bracket in brackets:
        nested = [nested, 1] if bracket == "[" else {"a": 1, "b": nested}
    is_taken = read_or_refuse(json.dumps({"x": nested}).encode()) is not None
    assert is_taken == (len(brackets) + 1 <= MAX_DEPTH)


def texts_for_the_model(chat: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for message in chat["messages"]:
        content = message.get("content") or []
        if isinstance(content, str):
            found.append(content)
            continue
        found += [part for part in content if isinstance(part, str)]
        found += [part["text"] for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return found


@given(chats(), st.booleans())
def test_the_estimate_is_within_the_bound_and_the_bound_holds_every_byte(
    chat: Mapping[str, Any], is_escaped: bool
) -> None:
    request = read_chat(written(chat, is_escaped=is_escaped, indent=None))
    count = len(chat["messages"])
    assert 4 * count <= request.prompt_tokens <= request.prompt_bound
    in_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts_for_the_model(chat))
    assert request.prompt_bound >= in_bytes + 16 * count + 64


@given(chats(), texts)
def test_another_message_never_makes_a_prompt_smaller(chat: Mapping[str, Any], text: str) -> None:
    before = read_chat(json.dumps(chat).encode())
    longer = {**chat, "messages": [*chat["messages"], {"role": "user", "content": text}]}
    after = read_chat(json.dumps(longer).encode())
    assert after.prompt_tokens >= before.prompt_tokens + 4
    assert after.prompt_bound == before.prompt_bound + 16 + len(text.encode("utf-8", "surrogatepass"))
