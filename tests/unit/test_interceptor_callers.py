"""Who may call what, and what is logged of it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server import errors
from llmrouter_server.runtime.interceptor import UNKNOWN_METHOD, CallRecord, current_caller
from unit.intercepted_calls import (
    AS_USER,
    CALLERS,
    LIST_PROVIDERS,
    PATIENCE_S,
    ROUTE,
    USER,
    Log,
    call,
    failing,
    good,
    kept_log,
    outcome,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from llmrouter_server.runtime.auth import Caller

    Answer = Callable[[RouteRequest, Any], Awaitable[Any]]
    Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
def log() -> Iterator[Log]:
    with kept_log() as kept:
        yield kept


# --- the access log and the metrics ---


async def test_a_call_is_one_line_of_json_and_counted(log: Log) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("llmrouter_requests_total", {"method": ROUTE, "code": "OK"}) or 0.0

    before = counted()
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", "told-2")))
    assert got.code is grpc.StatusCode.OK
    assert got.trailing == {}
    line = json.loads(log.text)
    assert log.text.count("\n") == 1
    assert set(line) - {"ts", "level", "logger", "message"} == {
        *["method", "code", "reason", "duration_ms", "request_id", "user_id"]
    }
    assert line.items() >= {"method": ROUTE, "code": "OK", "reason": None, "request_id": "told-2"}.items()
    assert line["user_id"] == str(USER.user_id)
    assert 0 < line["duration_ms"] < PATIENCE_S * 1000
    assert counted() == before + 1


@pytest.mark.parametrize("answer", [good, failing(RuntimeError("broken")), failing(errors.unavailable())])
@pytest.mark.parametrize("key", ["authorization", "cookie"])
async def test_a_token_is_never_logged(answer: Answer, key: str, log: Log) -> None:
    scheme = "Bearer " if key == "authorization" else "session="
    async with serving(answer) as channel:
        for token in (*CALLERS, "token-unknown"):
            await call(channel, ((key, scheme + token),))
    assert len(log.lines()) == len(CALLERS) + 1
    assert "token-" not in log.text


@pytest.mark.parametrize("sane", ["x", "8f3b-1.A_z", "a" * 128, "4a7c1d9e-0000-4000-8000-00000000000a"])
async def test_a_sane_request_id_is_kept_and_told_with_an_error(sane: str, log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", sane)))
    async with serving(failing(errors.unavailable())) as channel:
        failed = await call(channel, (*AS_USER, ("x-request-id", sane)))
    assert [line["request_id"] for line in log.lines()] == [sane, sane]
    assert "x-request-id" not in got.trailing
    assert failed.trailing["x-request-id"] == sane


async def test_a_call_without_a_request_id_is_told_the_one_it_got(log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, AS_USER)
    assert got.trailing == {"x-request-id": log.lines()[0]["request_id"]}


@pytest.mark.parametrize("odd", ["", " ", "a" * 129, "a" * 200, "a b", "a,b", "a/b", '{"a":1}', "<b>"])
async def test_any_other_request_id_is_replaced(odd: str, log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", odd)))
    assert log.lines()[0]["request_id"] == got.trailing["x-request-id"] == str(UUID(got.trailing["x-request-id"]))


@pytest.mark.parametrize("odd", ["a\n", "\na", "a\r\nb", "ä", "\uff11", "a\0", b"a"])
def test_a_request_id_that_no_grpc_client_can_send_is_replaced_too(odd: str | bytes) -> None:
    made = CallRecord(ROUTE, (("x-request-id", odd),)).request_id
    assert made == str(UUID(made))


# --- who may call what ---


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "Bearer token-user")],
        [("authorization", "bearer token-user")],
        [("authorization", "BEARER   token-user  ")],
        [("cookie", "session=token-user")],
        [("cookie", 'session="token-user"')],
        [("cookie", "theme=dark; session=token-user; lang=de")],
        [("cookie", "theme=dark;session=token-user")],
        [("cookie", 'preferences={"theme":"dark"}; session=token-user')],
        [("cookie", "odd; =x; my session=y; session=token-user")],
        [("cookie", "session=token-user; session=token-service; session=")],
        [("cookie", "session=token-user"), ("cookie", "theme=dark")],
        [("cookie", "theme=dark"), ("cookie", "session=token-user")],
        [("authorization", "Bearer token-user"), ("cookie", "session=token-service")],
        [("cookie", "session=token-service"), ("authorization", "Bearer token-user")],
    ],
)
async def test_the_token_is_read_from_the_header_else_from_the_cookie(metadata: list[tuple[str, str]]) -> None:
    seen: list[Caller] = []

    async def answer(_: RouteRequest, __: Any) -> RouteResponse:
        seen.append(current_caller())
        return RouteResponse()

    async with serving(answer) as channel:
        got = await call(channel, tuple(metadata))
    assert got.code is grpc.StatusCode.OK
    assert seen == [USER]


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", "token-user")],
        [("authorization", "Basic token-user")],
        [("authorization", "Bearertoken-user")],
        [("authorization", "Bearer token-other")],
        [("authorization", "Bearer token-user token-user")],
        [("cookie", "")],
        [("cookie", "session=")],
        [("cookie", 'session=""')],
        [("cookie", "session=; session=token-user")],
        [("cookie", "Session=token-user")],
        [("cookie", "mysession=token-user")],
        [("cookie", "session=token-other")],
        [("authorization", "Basic x"), ("cookie", "session=token-user")],
        [("authorization", ""), ("cookie", "session=token-user")],
        [("authorization", "Bearer token-other"), ("cookie", "session=token-user")],
    ],
)
async def test_without_a_good_token_nothing_is_done(metadata: list[tuple[str, str]], log: Log) -> None:
    async with serving(failing(AssertionError())) as channel:
        got = await call(channel, tuple(metadata))
    assert (got.code, got.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert [(line["code"], line["user_id"]) for line in log.lines()] == [("UNAUTHENTICATED", None)]


@pytest.mark.parametrize(
    ("token", "method", "roles"),
    [
        ("token-user", LIST_PROVIDERS, "admin"),
        ("token-service", LIST_PROVIDERS, "admin"),
        ("token-nothing", ROUTE, "admin or service or user"),
    ],
)
async def test_without_the_role_nothing_is_done(token: str, method: str, roles: str, log: Log) -> None:
    async with serving(failing(AssertionError())) as channel:
        got = await call(channel, (("authorization", f"Bearer {token}"),), method=method)
    assert (got.code, got.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert got.message == f"this call needs the role {roles}"
    assert log.lines()[0]["user_id"] == str(CALLERS[token].user_id)


async def test_calls_at_the_same_time_have_each_its_own_caller() -> None:
    both = asyncio.Barrier(2)

    async def answer(request: RouteRequest, _: Any) -> RouteResponse:
        await both.wait()
        assert str(current_caller().user_id) == request.user_id
        return RouteResponse()

    async with serving(answer) as channel:
        calls = [
            call(
                channel,
                (("authorization", f"Bearer {token}"),),
                request=RouteRequest(user_id=str(CALLERS[token].user_id)).SerializeToString(),
            )
            for token in ("token-user", "token-service")
        ]
        outcomes = await asyncio.gather(*calls)
    assert [got.code for got in outcomes] == [grpc.StatusCode.OK] * 2


async def test_health_and_reflection_need_no_token() -> None:
    async with serving(good) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([ask]), timeout=PATIENCE_S
        )
        (listed,) = [answer async for answer in answers]
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert [service.name for service in listed.list_services_response.service] == [reflection.SERVICE_NAME]


@pytest.mark.parametrize(
    "method", ["/llmrouter.v2.RoutingService/Nope", "/nope.Nope/Nope", "/grpc.health.v1.Health/Nope", "/nope", "/"]
)
@pytest.mark.parametrize("metadata", [(), AS_USER])
async def test_an_rpc_that_does_not_exist_is_unimplemented(method: str, metadata: Metadata, log: Log) -> None:
    async with serving(good) as channel:
        single = await call(channel, metadata, method=method)
        stream = await outcome(channel.stream_stream(method)(iter(()), metadata=metadata, timeout=PATIENCE_S))
    for got in (single, stream):
        assert (got.code, got.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
        assert got.message == "no such RPC"
    assert [line["request_id"] for line in log.lines()] == [got.trailing["x-request-id"] for got in (single, stream)]
    assert {line["method"] for line in log.lines()} == {UNKNOWN_METHOD}
