"""The one layer around every RPC, on a real server: what callers and operators see of each outcome."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import logging
import re
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from llmrouter.v2.error_reason_pb2 import ErrorReason
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server import errors
from llmrouter_server.runtime import interceptor
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.interceptor import UNKNOWN_METHOD, CallInterceptor, CallRecord, current_caller
from llmrouter_server.runtime.telemetry import JsonLines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Answer = Callable[[RouteRequest, Any], Awaitable[Any]]
    Metadata = tuple[tuple[str, str], ...]

ROUTE, LIST_PROVIDERS = "/llmrouter.v2.RoutingService/Route", "/llmrouter.v2.ProviderService/ListProviders"
USER = Caller(UUID(int=1), frozenset({Role.USER}))
SERVICE = Caller(UUID(int=2), frozenset({Role.SERVICE}))
CALLERS = {"token-user": USER, "token-service": SERVICE, "token-nothing": Caller(UUID(int=3), frozenset())}
AS_USER = (("authorization", "Bearer token-user"),)
SECRET = "postgresql://llmrouter:hunter2@db/llmrouter"
PATIENCE_S = 10.0

ERRORS = {
    "invalid": errors.invalid(("days", "must be from 1 to 365, not 0"), ("a.b", "is required")),
    "malformed_request": errors.malformed_request(),
    "not_found": errors.not_found("provider"),
    "already_exists": errors.already_exists("provider", "name", "Größer"),
    "etag_mismatch": errors.etag_mismatch("provider"),
    "budget_exceeded": errors.budget_exceeded(Decimal(50), Decimal("50.12"), 3600),
    "no_room_in_budget": errors.no_room_in_budget(Decimal(50), Decimal("1.25"), 800),
    "rate_limited": errors.rate_limited("at most 5 key changes a minute; try again in 42 s", 42),
    "unauthenticated": errors.unauthenticated("the token has expired"),
    "role_required": errors.role_required("this call needs the role admin"),
    "no_eligible_model": errors.no_eligible_model({"POWER_LEVEL": 17, "KEY_REQUIRED": 4}),
    "unavailable": errors.unavailable(),
    "deadline_exceeded": errors.deadline_exceeded(),
    "internal": errors.internal(),
    "unimplemented": errors.unimplemented(),
}
ERROR_REASON_PROTO = Path(__file__).parents[2] / "proto" / "llmrouter" / "v2" / "error_reason.proto"
CODES_OF_HTTP = {
    400: (grpc.StatusCode.INVALID_ARGUMENT,),
    401: (grpc.StatusCode.UNAUTHENTICATED,),
    403: (grpc.StatusCode.PERMISSION_DENIED,),
    404: (grpc.StatusCode.NOT_FOUND,),
    409: (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED),
    429: (grpc.StatusCode.RESOURCE_EXHAUSTED,),
    500: (grpc.StatusCode.INTERNAL,),
    501: (grpc.StatusCode.UNIMPLEMENTED,),
    503: (grpc.StatusCode.UNAVAILABLE,),
    504: (grpc.StatusCode.DEADLINE_EXCEEDED,),
}


class Verifier:
    async def verify(self, token: str) -> Caller:
        if token == "token-hang":
            await asyncio.Event().wait()
        if token not in CALLERS:
            raise errors.unauthenticated("the token is not known")
        return CALLERS[token]


@dataclass(frozen=True)
class Outcome:
    """What the caller gets."""

    code: grpc.StatusCode
    message: str
    trailing: dict[str, Any]

    @property
    def status(self) -> status_pb2.Status:
        return status_pb2.Status.FromString(self.trailing["grpc-status-details-bin"])

    def detail(self, kind: Any) -> Any:
        """Return the detail of this kind, or None."""
        found = [packed for packed in self.status.details if packed.Is(kind.DESCRIPTOR)]
        if not found:
            return None
        unpacked = kind()
        found[0].Unpack(unpacked)
        return unpacked

    @property
    def reason(self) -> str:
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "llmrouter"
        return str(info.reason)


@asynccontextmanager
async def serving(answer: Answer, *, longest_s: float = PATIENCE_S) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[CallInterceptor(cast("Any", Verifier()), longest_s=longest_s)])
    handler = grpc.unary_unary_rpc_method_handler(answer, RouteRequest.FromString, RouteResponse.SerializeToString)
    for method in (ROUTE, LIST_PROVIDERS):
        _, service, name = method.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    reflection.enable_server_reflection((reflection.SERVICE_NAME,), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def call(
    channel: grpc.aio.Channel,
    metadata: Metadata = AS_USER,
    *,
    method: str = ROUTE,
    request: bytes = b"",
    timeout_s: float | None = PATIENCE_S,
) -> Outcome:
    return await outcome(start(channel, metadata, method, request, timeout_s))


def start(
    channel: grpc.aio.Channel, metadata: Metadata, method: str, request: bytes, timeout_s: float | None
) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
    rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return rpc(request, metadata=metadata, timeout=timeout_s)


async def outcome(started: Any) -> Outcome:
    async with asyncio.timeout(2 * PATIENCE_S):
        code, message = await started.code(), await started.details()
        return Outcome(code, message, dict(await started.trailing_metadata()))


async def good(_: RouteRequest, __: Any) -> RouteResponse:
    return RouteResponse()


def failing(error: BaseException) -> Answer:
    async def answer(_: RouteRequest, __: Any) -> RouteResponse:
        raise error

    return answer


class Hanging:
    """An answer that never comes, and the events of waiting for it."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: RouteRequest, __: Any) -> RouteResponse:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError


class Log:
    def __init__(self) -> None:
        self.written = io.StringIO()

    @property
    def text(self) -> str:
        return self.written.getvalue()

    def lines(self, message: str = "call") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text.splitlines()) if line["message"] == message]

    async def line(self) -> dict[str, Any]:
        """Wait for the one line about the one call."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.lines():
                await asyncio.sleep(0.01)
        (line,) = self.lines()
        return line


@pytest.fixture
def log() -> Iterator[Log]:
    logger, kept = logging.getLogger("llmrouter_server"), Log()
    handler, level = logging.StreamHandler(kept.written), logger.level
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(level)


# --- errors ---


@pytest.mark.parametrize("name", ERRORS)
async def test_a_domain_error_comes_with_its_status_details_and_metadata(name: str, log: Log) -> None:
    error = ERRORS[name]
    async with serving(failing(error)) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", "told-1")))
    assert (got.code, got.message) == (error.code, error.message)
    assert (got.status.code, got.status.message) == (error.code.value[0], error.message)
    assert got.detail(error_details_pb2.ErrorInfo) == error_details_pb2.ErrorInfo(
        reason=error.reason, domain="llmrouter", metadata=dict(error.metadata)
    )
    bad, retry = got.detail(error_details_pb2.BadRequest), got.detail(error_details_pb2.RetryInfo)
    told = [(each.field, each.description) for each in bad.field_violations] if bad else []
    assert told == [(each.field, each.description) for each in error.violations]
    assert got.trailing["x-request-id"] == "told-1"
    assert got.trailing.get("retry-after") == (None if error.retry_after_s is None else str(error.retry_after_s))
    assert (retry.retry_delay if retry else None) == (
        None if error.retry_after_s is None else duration_pb2.Duration(seconds=error.retry_after_s)
    )
    assert (log.lines()[0]["code"], log.lines()[0]["reason"]) == (error.code.name, error.reason)


def test_every_error_is_tried_here() -> None:
    assert set(ERRORS) == {
        name for name, made in inspect.getmembers(errors, inspect.isfunction) if made.__module__ == errors.__name__
    }


@pytest.mark.parametrize("name", ERRORS)
def test_every_reason_is_one_of_the_api_with_the_code_of_its_http_status(name: str) -> None:
    wanted = f"ERROR_REASON_{ERRORS[name].reason}"
    assert wanted in ErrorReason.keys()  # noqa: SIM118 - a proto enum is no mapping
    comment = ERROR_REASON_PROTO.read_text(encoding="utf-8").split(f"  {wanted} = ")[0].rpartition("\n\n")[2]
    http = re.search(r"\bHTTP\s+(?://\s+)?(\d{3})\.", comment)
    assert http is not None
    assert ERRORS[name].code in CODES_OF_HTTP[int(http[1])]


@pytest.mark.parametrize("raised", [RuntimeError(SECRET), asyncio.CancelledError(SECRET), KeyError(SECRET)])
async def test_an_exceptions_text_is_for_the_log_only(raised: BaseException, log: Log) -> None:
    async with serving(failing(raised)) as channel:
        got = await call(channel)
    assert (got.code, got.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in f"{got.message} {got.trailing}"
    (fault,), (line,) = log.lines("unhandled exception"), log.lines()
    assert fault["request_id"] == line["request_id"] == got.trailing["x-request-id"]
    assert fault["method"] == ROUTE
    assert fault["exception"].startswith("Traceback")
    assert "hunter2" in fault["exception"]
    assert (line["code"], line["reason"]) == ("INTERNAL", "INTERNAL")


async def test_an_answer_of_another_kind_is_an_internal_error_too(log: Log) -> None:
    async def answer(_: RouteRequest, __: Any) -> RouteRequest:
        return cast("RouteRequest", SECRET)

    async with serving(answer) as channel:
        got = await call(channel)
    assert (got.code, got.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "str" not in got.message
    assert [line["code"] for line in log.lines()] == ["INTERNAL"]


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x0a\x05ab", b"\x12\x02\xc3\x28"])
async def test_bytes_that_are_no_message_are_refused_after_the_token_is_checked(request_bytes: bytes, log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, request=request_bytes)
        stranger = await call(channel, (), request=request_bytes)
    assert (got.code, got.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert stranger.code is grpc.StatusCode.UNAUTHENTICATED
    assert [line["reason"] for line in log.lines()] == ["MALFORMED_REQUEST", "UNAUTHENTICATED"]
    assert not log.lines("unhandled exception")


async def test_a_timeout_from_below_is_unavailable_and_worth_a_retry() -> None:
    async with serving(failing(TimeoutError(SECRET))) as channel:
        got = await call(channel)
    assert (got.code, got.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert got.trailing["retry-after"] == "1"
    assert "hunter2" not in str(got)


# --- streams ---


def streaming(*parts: Any) -> Any:
    """Make the handler of an RPC that answers with these; an exception among them is raised."""

    async def answer(_: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            yield RouteResponse(decision_id=part)

    return answer


@asynccontextmanager
async def streaming_server(answer: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[CallInterceptor(cast("Any", Verifier()), longest_s=PATIENCE_S)])
    handler = grpc.unary_stream_rpc_method_handler(answer, RouteRequest.FromString, RouteResponse.SerializeToString)
    _, service, name = ROUTE.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def read_stream(channel: grpc.aio.Channel, metadata: Metadata = AS_USER) -> tuple[list[str], Outcome | None]:
    """Return what came, and the outcome if it is an error."""
    stream = channel.unary_stream(ROUTE)(b"", metadata=metadata, timeout=PATIENCE_S)
    came: list[str] = []
    try:
        async for part in stream:
            came.append(RouteResponse.FromString(part).decision_id)  # noqa: PERF401 - what came before an error counts
    except grpc.aio.AioRpcError as error:
        return came, Outcome(error.code(), error.details() or "", dict(error.trailing_metadata() or ()))
    return came, None


async def read_all(stream: Any) -> list[bytes]:
    return [part async for part in stream]


async def test_a_stream_comes_whole_and_is_logged_once(log: Log) -> None:
    async with streaming_server(streaming("a", "b", "c")) as channel:
        assert await read_stream(channel) == (["a", "b", "c"], None)
    assert [line["code"] for line in log.lines()] == ["OK"]


async def test_a_stream_that_breaks_says_so_after_what_came(log: Log) -> None:
    async with streaming_server(streaming("a", RuntimeError(SECRET))) as channel:
        came, got = await read_stream(channel)
    assert came == ["a"]
    assert got is not None
    assert (got.code, got.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in str(got)
    assert [line["code"] for line in log.lines()] == ["INTERNAL"]


class Flood:
    """A stream without an end; `sent` counts its parts."""

    def __init__(self) -> None:
        self.sent, self.ended = 0, asyncio.Event()

    async def __call__(self, _: RouteRequest, __: Any) -> AsyncIterator[RouteResponse]:
        try:
            while True:
                self.sent += 1
                yield RouteResponse(decision_id="x" * 65_536)
        finally:
            self.ended.set()

    async def until_nothing_is_taken(self) -> None:
        before = -1
        while self.sent != before:
            before = self.sent
            await asyncio.sleep(0.2)


async def test_a_caller_that_hangs_up_on_a_stream_it_does_not_read_is_logged_as_cancelled(log: Log) -> None:
    flood = Flood()
    async with streaming_server(flood) as channel:
        stream = channel.unary_stream(ROUTE)(b"", metadata=AS_USER)
        await stream.read()
        await flood.until_nothing_is_taken()
        stream.cancel()
        await asyncio.wait_for(flood.ended.wait(), PATIENCE_S)
        line = await log.line()
    assert (line["code"], line["reason"], line["user_id"]) == ("CANCELLED", None, str(USER.user_id))
    assert not log.lines("unhandled exception")


async def test_a_stream_that_its_caller_does_not_read_ends_by_the_servers_own_deadline(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptor, "LONGEST_STREAM_S", 0.5)
    flood = Flood()
    async with streaming_server(flood) as channel:
        stream = channel.unary_stream(ROUTE)(b"", metadata=AS_USER)
        line = await log.line()
        await asyncio.wait_for(flood.ended.wait(), PATIENCE_S)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(read_all(stream), PATIENCE_S)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_a_stream_needs_a_token_too() -> None:
    async with streaming_server(streaming("a")) as channel:
        came, got = await read_stream(channel, ())
    assert came == []
    assert got is not None
    assert got.code is grpc.StatusCode.UNAUTHENTICATED


# --- deadlines and hanging up ---


@pytest.mark.parametrize("timeout_s", [None, PATIENCE_S])
async def test_a_call_that_hangs_ends_by_the_servers_own_deadline(timeout_s: float | None, log: Log) -> None:
    hanging = Hanging()
    async with serving(hanging, longest_s=0.2) as channel:
        got = await call(channel, timeout_s=timeout_s)
    assert (got.code, got.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert hanging.ended.is_set()
    assert (await log.line())["code"] == "DEADLINE_EXCEEDED"


async def test_the_deadline_holds_for_the_check_of_the_token_too() -> None:
    async with serving(good, longest_s=0.2) as channel:
        got = await call(channel, (("authorization", "Bearer token-hang"),))
    assert (got.code, got.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_call_that_hangs_ends_by_the_clients_deadline(log: Log) -> None:
    hanging = Hanging()
    async with serving(hanging) as channel:
        got = await call(channel, timeout_s=0.3)
        await asyncio.wait_for(hanging.ended.wait(), PATIENCE_S)
        line = await log.line()
    assert got.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_a_deadline_that_passed_while_the_server_was_busy_is_no_hanging_up(log: Log) -> None:
    hanging = Hanging()

    async def answer(request: RouteRequest, context: Any) -> RouteResponse:
        keep_busy(0.5)
        return await hanging(request, context)

    async with serving(answer) as channel:
        await call(channel, timeout_s=0.2)
        line = await log.line()
    assert hanging.ended.is_set()
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


def keep_busy(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_caller_that_hangs_up_ends_the_work_and_is_logged_as_cancelled(log: Log) -> None:
    hanging = Hanging()
    async with serving(hanging) as channel:
        started = start(channel, AS_USER, ROUTE, b"", PATIENCE_S)
        await asyncio.wait_for(hanging.begun.wait(), PATIENCE_S)
        started.cancel()
        await asyncio.wait_for(hanging.ended.wait(), PATIENCE_S)
        line = await log.line()
    assert (line["code"], line["reason"], line["user_id"]) == ("CANCELLED", None, str(USER.user_id))
    assert not log.lines("unhandled exception")


# --- the access log and the metrics ---


async def test_a_call_is_one_line_of_json_and_counted(log: Log) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("llmrouter_requests_total", {"method": ROUTE, "code": "OK"}) or 0.0

    before = counted()
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", "told-2")))
    assert got.code is grpc.StatusCode.OK
    assert got.trailing == {"x-request-id": "told-2"}
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
async def test_a_sane_request_id_is_kept(sane: str, log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", sane)))
    assert got.trailing["x-request-id"] == log.lines()[0]["request_id"] == sane


@pytest.mark.parametrize("odd", ["", " ", "a" * 129, "a" * 200, "a b", "a,b", "a/b", '{"a":1}', "<b>"])
async def test_any_other_request_id_is_replaced(odd: str, log: Log) -> None:
    async with serving(good) as channel:
        got = await call(channel, (*AS_USER, ("x-request-id", odd)))
    assert log.lines()[0]["request_id"] == got.trailing["x-request-id"] == str(UUID(got.trailing["x-request-id"]))


@pytest.mark.parametrize("odd", ["a\n", "\na", "a\r\nb", "ä", "\uff11", "a\0", b"a"])
def test_a_request_id_that_no_grpc_client_can_send_is_replaced_too(odd: str | bytes) -> None:
    context = SimpleNamespace(invocation_metadata=lambda: (("x-request-id", odd),))
    made = CallRecord(ROUTE, cast("Any", context)).request_id
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
