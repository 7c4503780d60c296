"""How many tokens a prompt is taken for, and how many it can be at most."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmrouter_server.gateway.chat import ChatRequest, read_chat

HELLO = {"role": "user", "content": "hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000, "detail": "high"}}


def read(**members: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [HELLO], **members}).encode())


@pytest.mark.parametrize(
    ("messages", "tokens", "bound"),
    [
        ([{"role": "user", "content": "12345678"}], 2 + 4, 8 + 16 + 64),
        ([{"role": "user", "content": "123456789"}], 3 + 4, 9 + 16 + 64),
        ([{"role": "user", "content": "ééééé"}], 4 + 4, 10 + 16 + 64),
        ([{"role": "user", "content": "ééééé1234"}], 5 + 4, 14 + 16 + 64),
        ([{"role": "user", "content": "😀"}], 2 + 4, 4 + 16 + 64),
        ([{"role": "user", "content": "\ud800"}], 2 + 4, 3 + 16 + 64),
        ([{"role": "user", "content": None}, {"role": "user"}], 8, 32 + 64),
        ([{"role": "user", "content": ["1234", {"type": "text", "text": "1234"}]}], 2 + 4, 8 + 16 + 64),
        ([{"role": "user", "content": [IMAGE]}], 800 + 4, 60_000 + 16 + 64),
        ([{"role": "user", "content": [IMAGE, {"type": "text", "text": "1234"}]}], 801 + 4, 60_004 + 16 + 64),
    ],
)
def test_a_prompt_is_estimated_and_bounded(messages: list[Any], tokens: int, bound: int) -> None:
    request = read(messages=messages)
    assert (request.prompt_tokens, request.prompt_bound) == (tokens, bound)


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": {"name": "t" * 1000}}]},
        {"functions": [{"name": "t" * 1000}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"title": "t" * 1000}}}},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "t" * 1000}}]}]},
        {"messages": [{"role": "user", "name": "t" * 1000, "content": "hello"}]},
        {"messages": [{"role": "t" * 1000, "content": "hello"}]},
        {"messages": [{"role": "user", "content": [{"type": "never heard of", "something": {"t": ["t" * 1000]}}]}]},
    ],
)
def test_everything_that_a_model_reads_counts(members: dict[str, Any]) -> None:
    request = read(**members)
    assert 250 <= request.prompt_tokens <= 300
    assert 1000 <= request.prompt_bound <= 1300


def test_a_member_that_no_model_reads_counts_for_the_bound_alone() -> None:
    plain, more = read(), read(user="u" * 1000)
    assert more.prompt_tokens == plain.prompt_tokens
    assert more.prompt_bound >= plain.prompt_bound + 1000


def test_json_may_be_written_for_the_model_with_spaces_and_line_ends() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"enum": [1] * 100}}}]
    plain, more = read(), read(tools=tools)
    as_written = re.sub(" +", " ", json.dumps(tools, indent=4))  # a run of spaces is one token
    assert more.prompt_bound - plain.prompt_bound >= len(as_written)


def test_an_attached_file_counts_with_its_bytes() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    request = read(messages=[{"role": "user", "content": [part]}])
    assert request.prompt_bound >= 100_000
    assert request.prompt_tokens == 804
