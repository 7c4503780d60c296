"""Both Python clients against a server that answers, refuses, fails and hangs as it is told."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import llmrouter
from client_stand_in import TOKEN, Route, StandIn, async_route
from llmrouter import (
    AlreadyExists,
    AsyncClient,
    BudgetExceeded,
    Client,
    DeadlineExceeded,
    EtagMismatch,
    FieldViolation,
    InternalError,
    InvalidField,
    LlmrouterError,
    NoEligibleModel,
    NotFound,
    RateLimited,
    RequestTooLarge,
    RoleRequired,
    RouteRequest,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from llmrouter.v2 import error_reason_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

CODES = {
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "MALFORMED_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "ROLE_REQUIRED": grpc.StatusCode.PERMISSION_DENIED,
    "RESOURCE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "NO_ELIGIBLE_MODEL": grpc.StatusCode.NOT_FOUND,
    "ALREADY_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "ETAG_MISMATCH": grpc.StatusCode.ABORTED,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "BUDGET_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "UNIMPLEMENTED": grpc.StatusCode.UNIMPLEMENTED,
    "BODY_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


PATIENCE_S = 60.0
LONGEST_PAUSE_S = 0.3
"""More than gRPC waits before the second try of a call."""
KINDS = [
    ("INVALID_FIELD", InvalidField),
    ("MALFORMED_REQUEST", InvalidField),
    ("UNAUTHENTICATED", Unauthenticated),
    ("ROLE_REQUIRED", RoleRequired),
    ("RESOURCE_NOT_FOUND", NotFound),
    ("NO_ELIGIBLE_MODEL", NoEligibleModel),
    ("ALREADY_EXISTS", AlreadyExists),
    ("ETAG_MISMATCH", EtagMismatch),
    ("RATE_LIMITED", RateLimited),
    ("BUDGET_EXCEEDED", BudgetExceeded),
    ("DEADLINE_EXCEEDED", DeadlineExceeded),
    ("INTERNAL", InternalError),
    ("UNIMPLEMENTED", Unimplemented),
    ("BODY_TOO_LARGE", RequestTooLarge),
]


def refuse(reason: str, *details: Any, code: grpc.StatusCode | None = None) -> Callable[..., None]:
    def behave(context: grpc.ServicerContext, _call: int) -> None:
        status = status_pb2.Status(code=(code or CODES[reason]).value[0], message=f"no: {reason}")
        info = error_details_pb2.ErrorInfo(reason=reason, domain="llmrouter", metadata={"a": "b"})
        for detail in (info, *details):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        encoded = ("grpc-status-details-bin", status.SerializeToString())
        context.set_trailing_metadata((("x-request-id", "told"), encoded))
        context.abort(code or CODES[reason], f"no: {reason}")

    return behave


async def test_sends_token_request_id_and_deadline(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    remaining: list[float] = []
    servicer.behave = lambda context, _call: remaining.append(context.time_remaining())
    assert (await route(target, token=TOKEN)).total_options == 1
    await route(target, token=TOKEN, timeout=60)
    assert [call["authorization"] for call in servicer.calls] == [f"Bearer {TOKEN}"] * 2
    assert len({call["x-request-id"] for call in servicer.calls}) == 2
    assert 0 < remaining[0] < 11 < remaining[1] < 61


@pytest.mark.parametrize(("reason", "kind"), KINDS)
async def test_each_reason_is_its_exception_and_is_not_tried_again(
    stand_in: tuple[StandIn, str], route: Route, reason: str, kind: type[LlmrouterError]
) -> None:
    servicer, target = stand_in
    servicer.behave = refuse(reason)
    with pytest.raises(LlmrouterError) as caught:
        await route(target, token=TOKEN)
    error = caught.value
    assert type(error) is kind
    assert (error.reason, error.code, error.message) == (reason, CODES[reason], f"no: {reason}")
    assert (error.metadata, error.request_id, error.retry_after) == ({"a": "b"}, "told", None)
    assert len(servicer.calls) == 1


@pytest.mark.parametrize(("reason", "kind"), [*KINDS, ("UNAVAILABLE", Unavailable)])
async def test_it_is_the_reason_that_tells_the_exception_and_not_the_code(
    stand_in: tuple[StandIn, str], reason: str, kind: type[LlmrouterError]
) -> None:
    servicer, target = stand_in
    servicer.behave = refuse(reason, code=grpc.StatusCode.DATA_LOSS)
    with pytest.raises(LlmrouterError) as caught:
        await async_route(target, token=TOKEN)
    assert type(caught.value) is kind


def test_every_reason_of_the_api_is_tried_or_has_no_class_of_its_own() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    only_at_the_edge = {"ORIGIN_NOT_ALLOWED", "UNKNOWN_PATH", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
    assert reasons - set(CODES) == (only_at_the_edge - {"BODY_TOO_LARGE"}) | {"UNSPECIFIED", "UNAVAILABLE"}


async def test_fields_and_retry_delay_come_along(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    violation = error_details_pb2.BadRequest.FieldViolation(field="a.b", description="is wrong")
    servicer.behave = refuse(
        "INVALID_FIELD",
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=42, nanos=500_000_000)),
    )
    with pytest.raises(InvalidField) as caught:
        await route(target, token=TOKEN)
    assert [(each.field, each.description) for each in caught.value.fields] == [("a.b", "is wrong")]
    assert caught.value.retry_after == 42.5


async def test_a_reason_of_a_newer_server_falls_back_to_the_code(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    servicer.behave = refuse("SOMETHING_NEW", code=grpc.StatusCode.NOT_FOUND)
    with pytest.raises(NotFound) as caught:
        await route(target, token=TOKEN)
    assert caught.value.reason == "SOMETHING_NEW"


async def test_an_error_without_details_is_told_by_its_code(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in

    def garbage(context: grpc.ServicerContext, _call: int) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff garbage"),))
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "by a proxy")

    servicer.behave = garbage
    with pytest.raises(RoleRequired) as caught:
        await route(target, token=TOKEN)
    assert (caught.value.reason, caught.value.message) == ("", "by a proxy")
    assert caught.value.request_id == servicer.calls[0]["x-request-id"]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_what_a_server_could_not_answer_is_tried_again_up_to_four_times(
    stand_in: tuple[StandIn, str], route: Route, code: grpc.StatusCode
) -> None:
    servicer, target = stand_in

    def twice(context: grpc.ServicerContext, call: int) -> None:
        if call <= 2:
            context.abort(code, "not yet")

    servicer.behave = twice
    assert (await route(target, token=TOKEN)).total_options == 3
    servicer.calls.clear()
    servicer.behave = lambda context, _call: context.abort(code, "never")
    with pytest.raises(Unavailable, match="never"):
        await route(target, token=TOKEN)
    assert len(servicer.calls) == 4
    servicer.calls.clear()
    with pytest.raises(Unavailable):
        await route(target, token=TOKEN, retries=False)
    assert len(servicer.calls) == 1


async def test_an_answer_that_a_server_no_longer_gives_is_told_in_words(
    stand_in: tuple[StandIn, str], route: Route
) -> None:
    servicer, target = stand_in
    servicer.behave = lambda context, _call: context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
    with pytest.raises(Unavailable, match="the server ended before it answered"):
        await route(target, token=TOKEN, retries=False)


async def test_nobody_listening_is_unavailable(route: Route) -> None:
    with pytest.raises(Unavailable) as caught:
        await route("127.0.0.1:1", token=TOKEN, retries=False)
    assert caught.value.reason == ""


async def test_the_deadline_ends_a_call_that_hangs(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    released = threading.Event()
    servicer.behave = lambda _context, _call: released.wait(PATIENCE_S)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await route(target, token=TOKEN, timeout=0.2)
    released.set()
    assert time.monotonic() - started < PATIENCE_S / 2


async def test_cancellation_stays_cancellation(stand_in: tuple[StandIn, str]) -> None:
    servicer, target = stand_in
    arrived, released = threading.Event(), threading.Event()

    def hang(_context: grpc.ServicerContext, _call: int) -> None:
        arrived.set()
        released.wait(PATIENCE_S)

    servicer.behave = hang
    async with AsyncClient(target, token=TOKEN) as client:
        task = asyncio.create_task(client.routing.route(timeout=PATIENCE_S))
        assert await asyncio.to_thread(arrived.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        await asyncio.sleep(LONGEST_PAUSE_S)
    assert len(servicer.calls) == 1


async def test_the_token_shows_nowhere(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    servicer.behave = refuse("INTERNAL")
    with pytest.raises(InternalError) as caught:
        await route(target, token=TOKEN)
    error = caught.value
    shown = [repr(error), str(error), "".join(traceback.format_exception(error)), repr(error.__cause__)]
    held = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for each in (held, held.__cause__) if each for frame in each.stack]
    clients = {"aio.py", "aio_calls.py", "calls.py", "client.py", "_channel.py", "_call.py", "_base_call.py"}
    inside = [frame for frame in frames if frame.filename.rpartition("/")[2] in clients]
    assert inside
    shown += [str(frame.locals) for frame in inside]
    shown += [repr(Client(target, token=TOKEN)), str(vars(error.__cause__))]
    assert not [text for text in shown if "secret" in text]


def test_one_client_serves_many_threads(stand_in: tuple[StandIn, str]) -> None:
    servicer, target = stand_in
    with Client(target, token=TOKEN) as client, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: client.routing.Route(RouteRequest()), range(200)))
    assert len(answers) == len(servicer.calls) == 200


def test_both_clients_have_the_same_services_and_arguments() -> None:
    ours = {name for name in vars(Client("localhost:1", token=TOKEN)) if not name.startswith("_")}
    theirs = {"providers", "models", "health", "byok", "credentials", "audit", "settings", "routing", "rules", "usage"}
    assert ours == theirs
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)
    assert set(llmrouter.__all__) <= set(dir(llmrouter))


async def test_what_may_not_be_repeated_is_called_once() -> None:
    calls: list[str] = []

    class Counting(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def refused(_request: bytes, context: grpc.ServicerContext) -> bytes:
                calls.append(details.method.rpartition("/")[2])
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

            return grpc.unary_unary_rpc_method_handler(refused)

    server = grpc.server(ThreadPoolExecutor(2), handlers=(Counting(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with AsyncClient(f"127.0.0.1:{port}", token=TOKEN) as client:
            with pytest.raises(Unavailable):
                await client.providers.create_provider(name="n", provider_type="t", api_endpoint="e")
            with pytest.raises(Unavailable):
                await client.settings.get_settings()
    finally:
        server.stop(None).wait(5)
    assert calls == ["CreateProvider", *["GetSettings"] * 4]


def test_an_error_passes_from_process_to_process() -> None:
    violation = FieldViolation("a", "is wrong")
    error = InvalidField("no", "INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, (violation,), {"a": "b"}, 2.5, "id")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.fields, again.retry_after) == (InvalidField, str(error), (violation,), 2.5)
