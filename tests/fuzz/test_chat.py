"""The chat door with hostile bodies and headers, in front of a provider that is well."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.again import wait_to_ask_again
from fuzz.conftest import CASES, IS_BOUNDED
from fuzz.hostile import BODIES, JSON, TEXTS
from fuzz.laws import check_logs, check_text
from fuzz.test_rest import HEADERS, NOT_UNDERSTOOD
from gateway.chat_stack import chat_stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.chat_stack import ChatStack, World

WAIT_S = 15.0
RECORDED_S = 30.0
PATH = "/v1/chat/completions"
MODEL = "the model"
"""Stands for the name of the model that there is."""
fuzz = settings(
    max_examples=CASES * 3 // 10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=IS_BOUNDED,
)

ANY = JSON | st.integers(-(2**70), 2**70) | st.sampled_from(TEXTS)
NAMES = [
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools", "functions",
    "response_format", "allow_fallbacks", "modalities", "service_tier", "plugins", "audio", "prediction", "models",
    "Model", "STREAM", "user", "metadata", "seed", "stop", "logit_bias", "decision_id", "candidates", "", "a\0b",
]  # fmt: skip


def often(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what is right, now and then anything."""
    return st.sampled_from(range(40)).flatmap(lambda number: ANY if number == 39 else good)


PARTS = st.fixed_dictionaries(
    {"type": often(st.sampled_from(["text", "text", "image_url", "input_audio", "file", "x"]))},
    optional={
        "text": often(st.sampled_from(TEXTS)),
        "image_url": often(st.fixed_dictionaries({"url": st.sampled_from(TEXTS)})),
        "input_audio": ANY,
        "file": ANY,
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": often(st.sampled_from(["user", "system", "assistant", "tool", "developer", "x"])),
        "content": often(st.sampled_from(TEXTS) | st.lists(often(PARTS), max_size=3) | st.none()),
    },
    optional={"name": ANY, "tool_calls": ANY, "tool_call_id": ANY, "refusal": ANY, "audio": ANY},
)
SHAPED = st.fixed_dictionaries(
    {
        "model": often(st.sampled_from([MODEL, MODEL, MODEL, MODEL, "auto", "eco", "precision", *TEXTS[:2]])),
        "messages": often(st.lists(often(MESSAGES), min_size=1, max_size=4)),
    },
    optional={
        "stream": often(st.booleans()),
        "stream_options": often(st.fixed_dictionaries({}, optional={"include_usage": often(st.booleans()), "x": ANY})),
        "max_tokens": often(st.integers(1, 5000)),
        "max_completion_tokens": often(st.integers(1, 5000)),
        "n": often(st.integers(1, 3)),
        "tools": often(st.lists(often(st.just({"type": "function", "function": {"name": "f"}})), max_size=2)),
        "response_format": often(st.just({"type": "json_object"})),
        "allow_fallbacks": often(st.booleans()),
    },
)
BESIDE = st.dictionaries(st.sampled_from(NAMES) | st.sampled_from(TEXTS[:20]), ANY, max_size=2)
OURS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "x-llmrouter-credentials", "x-llmrouter-stream", "x-llmrouter-next", "x-llmrouter-user-id",
                "x-llmrouter-decision-id", "x-envoy-max-retries", "x-envoy-upstream-rq-per-try-timeout-ms",
                "x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-fault-delay-request", "openai-beta",
                "content-encoding", "x-stainless-retry-count", "idempotency-key",
            ]
        ),
        st.sampled_from(["", "0", "1", "-1", "99999999999", "reset", "a\tb\tc\td\t", "gzip", "x" * 5000, "\xff\xfe"]),
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body of the right shape, perhaps with other members or broken bytes; or one of no shape at all."""
    kind = draw(st.sampled_from(range(12)))
    if kind == 11:
        return draw(BODIES)
    members = draw(SHAPED) | (draw(BESIDE) if kind in (8, 9) else {})
    text = json.dumps(members, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind == 10:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=6)) + text[at + draw(st.integers(0, 6)) :]
    return text


@pytest.fixture(scope="module")
async def door() -> AsyncIterator[ChatStack]:
    async with chat_stack() as running:
        yield running
        await running.stack.stop()
        check_logs(running.stack)


def exchange(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def hold_to_the_laws(answer: tuple[int, dict[str, str], bytes], sent: bytes) -> str:
    """Return the error's code, if it is one."""
    status, headers, body = answer
    assert status < 500, answer
    check_text(f"{headers} {body.decode(errors='replace')}", sent.decode(errors="replace"))
    if status == 200:
        assert headers["x-llmrouter-attempts"] == "1"
        assert body.endswith(b"data: [DONE]\n\n") or json.loads(body)["choices"]
        return ""
    assert headers["content-type"] == "application/json", answer
    told = json.loads(body)
    if told.get("message") == NOT_UNDERSTOOD:  # broken HTTP, for which there is no path yet
        return NOT_UNDERSTOOD
    assert headers["x-request-id"]
    assert set(told) == {"error"}, answer
    assert set(told["error"]) == {"message", "type", "param", "code"}, answer
    assert told["error"]["message"]
    return str(told["error"]["code"])


@pytest.mark.timeout(900)
async def test_hostile_chat_requests(door: ChatStack, outcomes: Counter[str]) -> None:
    world = await door.new_world()
    answered: list[int] = []
    lost: list[int] = []
    served: Counter[str] = Counter()

    @fuzz
    @given(bodies(), st.just([]) | OURS | HEADERS, st.sampled_from(range(20)))
    def run(body: bytes, headers: list[tuple[str, str]], who: int) -> None:
        body = body.replace(MODEL.encode(), world.model.encode())
        head = [f"POST {PATH} HTTP/1.1", "host: fuzz", f"content-length: {len(body)}", "connection: close"]
        if who != 19:
            token = door.stack.identity.mint("service" if who == 18 else "user")
            head.append(f"authorization: Bearer {token}")
        head += [f"{name}: {value}" for name, value in headers]
        sent = "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body
        answer = exchange(door.stack.ports.http, sent)
        if answer[0] in (503, 504):
            wait_to_ask_again(door.stack, outcomes)
            lost.append(answer[0])
            answer = exchange(door.stack.ports.http, sent)
        outcomes[f"chat {answer[0]} {hold_to_the_laws(answer, sent)}"] += 1
        answered.append(answer[0])
        if answer[0] == 200:
            served[answer[1]["x-llmrouter-model"]] += 1

    await asyncio.to_thread(run)  # the provider answers meanwhile
    assert {200, 400, 401} <= set(answered)
    await everything_is_recorded(door, world, served, len(lost))


async def everything_is_recorded(door: ChatStack, world: World, served: Counter[str], lost: int) -> None:
    """What was served, by model, was asked of a provider once, recorded once, and is over; what was lost may be so."""
    assert served[world.model] <= len(world.order()) <= served[world.model] + lost
    connection = await asyncpg.connect(door.stack.database_url)
    try:
        async with asyncio.timeout(RECORDED_S):
            while await connection.fetchval("select count(*) from llm_gateway_requests"):
                await asyncio.sleep(0.05)
        assert await connection.fetchval("select count(*) from llm_budget_holds") == 0
        recorded = await connection.fetchval("select count(*) from llm_usage_logs")
        assert served.total() <= recorded <= served.total() + lost
    finally:
        await connection.close()
