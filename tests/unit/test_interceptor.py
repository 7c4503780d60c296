"""The one layer around every RPC, on a real server: what callers and operators see of each outcome."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from llmrouter.v2.error_reason_pb2 import ErrorReason
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server import errors
from llmrouter_server.runtime.interceptor import CallInterceptor
from unit.intercepted_calls import (
    AS_USER,
    PATIENCE_S,
    ROUTE,
    SECRET,
    USER,
    Log,
    Verifier,
    call,
    failing,
    good,
    kept_log,
    serving,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def log() -> Iterator[Log]:
    with kept_log() as kept:
        yield kept


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

    async def answer(request: RouteRequest, context: Any) -> RouteResponse:
        try:
            return await hanging(request, context)
        finally:  # what was long on its way is given up by its caller before the server's count of the time is over
            keep_busy(max(0.0, context.time_remaining()))

    async with serving(answer) as channel:
        while not hanging.begun.is_set():  # a busy machine may let the deadline pass before the call arrives
            got = await call(channel, timeout_s=0.3)
            assert got.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(hanging.ended.wait(), PATIENCE_S)
        lines = await log.some()
    assert {(line["code"], line["reason"]) for line in lines} == {("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")}


async def test_a_deadline_that_passed_while_the_server_was_busy_is_no_hanging_up(log: Log) -> None:
    hanging = Hanging()

    async def answer(request: RouteRequest, context: Any) -> RouteResponse:
        keep_busy(0.5)
        return await hanging(request, context)

    async with serving(answer) as channel:
        while not hanging.begun.is_set():
            await call(channel, timeout_s=0.2)
        await asyncio.wait_for(hanging.ended.wait(), PATIENCE_S)
        lines = await log.some()
    assert {(line["code"], line["reason"]) for line in lines} == {("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")}


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


async def test_an_error_is_told_to_the_end_although_the_deadline_has_passed() -> None:
    told: list[str] = []

    async def abort(code: grpc.StatusCode, *_: object) -> None:
        await asyncio.sleep(0.01)
        told.append(code.name)
        raise grpc.aio.AbortError

    context = SimpleNamespace(set_trailing_metadata=lambda _: None, time_remaining=lambda: 0.0, abort=abort)
    calls = CallInterceptor(cast("Any", Verifier()), longest_s=PATIENCE_S)
    handler = grpc.unary_unary_rpc_method_handler(good, RouteRequest.FromString, RouteResponse.SerializeToString)
    calls.add_registered_method_handlers("llmrouter.v2.RoutingService", {"Route": handler})
    wrapped = cast("Any", calls.service(cast("Any", SimpleNamespace(method=ROUTE, invocation_metadata=()))))
    with pytest.raises(grpc.aio.AbortError):
        await asyncio.create_task(wrapped.unary_unary(b"", context))
    assert told == ["UNAUTHENTICATED"]
