from __future__ import annotations

import hashlib

import pytest

from gateway import behaviour
from gateway.answers import Answer, Usage, checked, is_unharmed
from gateway.behaviour import ok
from gateway.provider_client import ask
from gateway.provider_server import provider


async def test_an_answer_is_one_json_document_with_its_usage() -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(content="Grüße 🙂", prompt_tokens=3, completion_tokens=2, cached_tokens=1)))
        assert served.url == f"http://127.0.0.1:{served.port}/v1"
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    assert reply.json["choices"][0]["message"]["content"] == "Grüße 🙂"
    assert reply.json["model"] == "some-model"
    assert reply.json["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
    }


async def test_a_stream_has_a_role_content_a_reason_usage_and_an_end() -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(chunks=3)), stream=True)
    assert reply.header("content-type") == "text/event-stream; charset=utf-8"
    assert reply.data[-1] == "[DONE]"
    role, *words, finish, usage = reply.chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert len(words) == 3
    assert reply.text == Answer(chunks=3).text
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"] == Answer().figures()


@pytest.mark.parametrize(
    ("usage", "asked", "told_in"),
    [
        (Usage.OPENAI, True, [-1]),
        (Usage.OPENAI, False, []),
        (Usage.ALWAYS, False, [-1]),
        (Usage.WITH_FINISH, False, [-1]),
        (Usage.GROQ, False, [-1]),
        (Usage.NEVER, True, []),
    ],
)
async def test_usage_is_told_where_the_answer_says(usage: Usage, asked: bool, told_in: list[int]) -> None:
    async with provider() as served:
        reply = await ask(served, ok(Answer(usage=usage)), stream=True, usage=asked)
    told = [chunk.get("usage") or chunk.get("x_groq", {}).get("usage") for chunk in reply.chunks]
    assert [index - len(told) for index, figures in enumerate(told) if figures] == told_in


async def test_no_usage_means_none_in_a_document_either() -> None:
    async with provider() as served:
        assert "usage" not in (await ask(served, behaviour.no_usage())).json


async def test_a_long_answer_arrives_with_its_checksums() -> None:
    async with provider() as served:
        reply = await ask(served, ok(checked(2000)), stream=True)
        (seen,) = served.requests
    assert len(reply.chunks) == 2003
    assert is_unharmed(reply.text)
    assert not is_unharmed(reply.text.replace("7", "8", 1))
    assert (seen.sent_bytes, seen.sent) == (len(reply.body), hashlib.sha256(reply.body).hexdigest())
