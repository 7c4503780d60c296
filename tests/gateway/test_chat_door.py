"""Who comes to the chat door that should not get in, or not as somebody else: tokens, headers, paths, limits."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from gateway import faults
from gateway.answers import OK
from gateway.chat_client import send
from services.test_security import FORGED, signed

if TYPE_CHECKING:
    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, World

CHAT = "/v1/chat/completions"


def assert_refused(reply: Reply, expected: int, code: str, param: str | None = None) -> None:
    """The one shape of OpenAI's errors, with a request id."""
    assert reply.end == "whole"
    assert reply.status == expected, reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert set(reply.json) == {"error"}
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert not [name for name in reply.headers if name.startswith(("x-envoy-", "grpc-", "x-llmrouter-"))]


def body_of(world: World, **more: Any) -> bytes:
    return json.dumps({"model": world.model, "messages": [{"role": "user", "content": "x"}]} | more).encode()


async def request(
    chat: ChatStack, method: str, path: str, token: str | None, body: bytes = b"", **headers: str
) -> Reply:
    sent = {"authorization": f"Bearer {token}"} if token is not None else {}
    return await send(chat.stack.ports.http, method, path, sent | headers, body)


async def test_native_grpc_is_turned_away(chat: ChatStack, world: World) -> None:
    reply = await chat.post(world, body_of(world), **{"content-type": "application/grpc"})
    assert_refused(reply, 415, "unsupported_media_type")


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_nobodys(chat: ChatStack, world: World, name: str) -> None:
    token = signed(chat.stack, **FORGED[name])
    for method, path in (("POST", CHAT), ("GET", "/v1/models")):
        reply = await request(chat, method, path, token, body_of(world) if method == "POST" else b"")
        assert_refused(reply, 401, "unauthenticated")
        assert token not in repr(reply)
    assert world.order() == []


async def test_only_a_bearer_token_opens_the_door(chat: ChatStack, world: World) -> None:
    mine, basic = world.user.token, base64.b64encode(f"user:{world.user.token}".encode()).decode()
    for headers in (
        {},
        {"cookie": f"session={mine}"},
        {"cookie": f"session={mine}", "origin": f"http://127.0.0.1:{chat.stack.ports.http}"},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": mine},
        {"authorization": f"Basic {basic}"},
        {"authorization": "Bearer x", "cookie": f"session={mine}"},
        {"x-api-key": mine},
        {"api-key": mine},
    ):
        reply = await request(chat, "POST", CHAT, None, body_of(world), **headers)
        assert_refused(reply, 401, "unauthenticated")
    assert_refused(await request(chat, "POST", f"{CHAT}?access_token={mine}", None), 401, "unauthenticated")
    assert world.order() == []


async def test_a_cookie_beside_a_token_is_ignored(chat: ChatStack, world: World) -> None:
    other = chat.stack.identity.mint("service", uuid.uuid4())
    reply = await chat.post(world, body_of(world), cookie=f"session={other}", origin="https://evil.example")
    assert reply.status == 200
    assert other not in f"{world.a.chats[0].headers}"
    assert len(await chat.recorded(world)) == 1


FORGED_HEADERS = {
    "x-llmrouter-credentials": "authorization\tBearer forged\tauthorization\tBearer forged",
    "x-llmrouter-stream": "1",
    "x-llmrouter-next": "1",
    "x-llmrouter-gateway-secret": "forged",
    "x-llmrouter-provider": "forged",
    "x-envoy-max-retries": "0",
    "x-envoy-retry-on": "gateway-error",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-hedge-on-per-try-timeout": "true",
    "x-envoy-upstream-alt-stat-name": "forged",
    "x-envoy-fault-delay-request": "60000",
    "x-envoy-fault-abort-request": "418",
    "x-envoy-original-path": "/v1/models",
    "x-envoy-ip-tags": "forged",
    "x-envoy-internal": "true",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "forged.test",
    "x-forwarded-proto": "https",
    "x-http-method-override": "GET",
    "x-api-key": "forged",
    "openai-organization": "forged",
    "proxy-authorization": "Basic forged",
    "accept-encoding": "gzip, br",
    "content-encoding": "gzip",
    "te": "trailers",
    "host": "forged.test",
}
PROVIDERS_BUSINESS = {"accept", "accept-encoding", "authorization", "content-length", "content-type", "host",
                      "user-agent", "x-request-id"}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_forged_headers_change_nothing(chat: ChatStack, world: World, stream: bool) -> None:
    world.a.behave(faults.reset_before_headers())
    reply = await chat.post(world, body_of(world, stream=stream), **FORGED_HEADERS)
    assert (reply.status, reply.text, reply.is_stream) == (200, OK.text, stream)
    assert [letter for _, letter in world.order()] == ["A", "A", "B"]
    for letter in "AB":
        for seen in world.providers[letter].chats:
            assert "forged" not in f"{seen.path} {seen.headers}"
            assert set(seen.headers) <= PROVIDERS_BUSINESS, seen.headers
            assert seen.headers["authorization"] == f"Bearer {world.keys[letter]}"
            assert seen.headers["host"] == f"127.0.0.1:{world.providers[letter].port}"


async def test_no_user_acts_for_another(chat: ChatStack, world: World) -> None:
    header, other = "x-llmrouter-user-id", uuid.uuid4()
    for name in (str(other), str(other).upper(), other.hex):
        reply = await chat.post(world, body_of(world), **{header: name})
        assert_refused(reply, 403, "role_required")
    for name in ("x", f"{world.user.id}, {other}"):
        assert_refused(await chat.post(world, body_of(world), **{header: name}), 400, "invalid_field", "user_id")
    admin = chat.stack.identity.mint("admin")
    reply = await request(chat, "POST", CHAT, admin, body_of(world), **{header: str(world.user.id)})
    assert_refused(reply, 403, "role_required")
    reply = await request(chat, "GET", "/v1/models", world.user.token, **{header: str(other)})
    assert_refused(reply, 403, "role_required")
    assert world.order() == []
    own = await chat.post(world, body_of(world), **{header: str(world.user.id)})
    assert own.status == 200


async def test_other_ways_of_writing_the_path(chat: ChatStack, world: World) -> None:
    for path in (f"{CHAT}?x=1", "/v1//chat/completions", "//v1/chat/completions", "/v1/models/../chat/completions"):
        reply = await request(chat, "POST", path, world.user.token, body_of(world))
        assert (reply.status, reply.text) == (200, OK.text), path
    assert {seen.path for seen in world.a.chats} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CHAT),
        ("HEAD", CHAT),
        ("PUT", CHAT),
        ("DELETE", CHAT),
        ("POST", f"{CHAT}/"),
        ("POST", f"{CHAT}/x"),
        ("POST", "/v1/chat%2Fcompletions"),
        ("POST", "/v1/chat/completions;x"),
        ("POST", "/v1/chat/Completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/models"),
        ("POST", "/v1/"),
        ("GET", "/v1/models/no-such-model"),
        ("GET", "/v1/models/../nowhere"),
    ],
)
async def test_a_path_that_there_is_not(chat: ChatStack, world: World, method: str, path: str) -> None:
    reply = await request(chat, method, path, world.user.token, body_of(world) if method != "HEAD" else b"")
    if method == "HEAD":
        assert (reply.status, reply.body) == (404, b"")
    else:
        assert_refused(reply, 404, "resource_not_found" if "no-such-model" in path else "unknown_path")
    assert_refused(await request(chat, "POST", path, None), 401, "unauthenticated")
    assert world.order() == []


UNDER_WAY = """
insert into llm_gateway_requests (decision_id, user_id, plan, expires_at)
select gen_random_uuid(), $1, '{}', now() + interval '1 minute' from generate_series(1, $2::int)"""


async def test_a_user_with_too_many_requests_under_way(chat: ChatStack, world: World) -> None:
    connection = await asyncpg.connect(chat.stack.database_url)
    try:
        await connection.execute(UNDER_WAY, world.user.id, 99)
        assert (await chat.post(world, body_of(world))).status == 200
        await connection.execute(UNDER_WAY, world.user.id, 1)
        reply = await until_status(chat, world, 429)
        assert_refused(reply, 429, "rate_limited")
        assert int(reply.headers["retry-after"]) >= 1
        assert "100 requests at once" in reply.error["message"]
        await connection.execute("delete from llm_gateway_requests where user_id = $1 and plan = '{}'", world.user.id)
        assert (await chat.post(world, body_of(world))).status == 200
    finally:
        await connection.close()


async def until_status(chat: ChatStack, world: World, wanted: int) -> Reply:
    async with asyncio.timeout(20):
        while (reply := await chat.post(world, body_of(world))).status != wanted:
            assert reply.status == 200, reply
    return reply


async def test_a_user_who_asks_too_often(chat: ChatStack, world: World) -> None:
    async def ask() -> Reply:
        return await request(chat, "GET", "/v1/models/auto", world.user.token)

    limited: list[Reply] = []
    async with asyncio.timeout(30):
        while not limited:
            limited = [reply for reply in await asyncio.gather(*(ask() for _ in range(150))) if reply.status != 200]
    assert_refused(limited[0], 429, "rate_limited")
    assert limited[0].headers["retry-after"] == "1"
