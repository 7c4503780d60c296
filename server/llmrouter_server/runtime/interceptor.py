"""The one interceptor around every RPC: request id, authentication, role, deadline, errors, access log, metrics, spans.

One pass instead of a chain of interceptors, because each layer of grpc.aio costs 3 to 6 % of a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import types
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import grpc
import uuid_utils
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from llmrouter_server import errors
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.call_lines import LOGGER, Call
from llmrouter_server.runtime.roles import METHOD_ROLES, OPEN_SERVICES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

    from llmrouter_server.runtime.auth import Caller, Role, TokenVerifier
    from llmrouter_server.runtime.tracing import Tracer

log = logging.getLogger(LOGGER)

T = TypeVar("T")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

DOMAIN = "llmrouter"
SESSION_COOKIE = "session"
UNKNOWN_METHOD = "unknown"
"""Stands for every RPC that does not exist: who makes names up must not make metrics up."""
LONGEST_STREAM_S = 300.0
"""The deadline of a streamed answer that brings none, and the longest one allowed."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_caller: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Return who sent the call that is being answered."""
    return _caller.get()


def reads(read: Callable[[bytes], Any]) -> Callable[[T], T]:
    """Let an RPC be given what `read` makes of the request's bytes, and return the answer's bytes itself."""

    def mark(method: T) -> T:
        method.read = read  # type: ignore[attr-defined]
        return method

    return mark


class CallInterceptor(grpc.GenericRpcHandler):
    """Wraps each RPC once, when it is added, and answers them all.

    Services are added to it as to a server, by the generated functions, and it to the server as its only handler. So
    no method is registered with grpc.aio, which looks at every registered one again for each call, and none of its
    own interceptors stands in between.
    """

    def __init__(self, verifier: TokenVerifier, *, longest_s: float, tracer: Tracer | None = None) -> None:
        self._verifier, self._longest_s, self._tracer = verifier, longest_s, tracer
        self._handlers: dict[str, Handler] = {}
        self._unknown: Handler = grpc.stream_stream_rpc_method_handler(self._no_such_rpc)
        """It answers as a stream, which need not wait for a request."""

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: what generated code adds here, it adds as registered methods too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add a service's RPCs, by their names. Those of OPEN_SERVICES are answered as they are."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._handlers[method] = handler if service in OPEN_SERVICES else self._wrap(method, handler)

    def service(self, details: grpc.HandlerCallDetails) -> Handler:
        return self._handlers.get(details.method, self._unknown)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """Return what answers the RPC, from bytes to bytes: what cannot be read or written is an error like others."""
        one: Callable[..., Any] | None = handler.unary_unary
        many: Callable[..., Any] | None = handler.unary_stream
        read, write = handler.request_deserializer, handler.response_serializer
        read, write = getattr(one, "read", read), bytes if hasattr(one, "read") else write
        if read is None or write is None or (one is None and many is None):
            raise NotImplementedError(f"{method} takes a stream, or no protobuf message; neither is wrapped")

        async def answer_one(sent: bytes, context: Context) -> bytes:
            async def answer() -> bytes:
                response: bytes = write(await one(_read(read, sent), context))  # type: ignore[misc] # it is not None
                return response

            return await self._answering(method, context, self._longest_s).run(answer)

        async def answer_many(sent: bytes, context: Context) -> None:
            """Send the parts here, and not as a generator, so that what ends the sending is seen here too."""

            async def answer() -> None:
                parts = many(_read(read, sent), context)  # type: ignore[misc] # it is not None
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        await context.write(write(part))

            await self._answering(method, context, LONGEST_STREAM_S).run(answer)

        if one is None:
            return grpc.unary_stream_rpc_method_handler(answer_many)
        return grpc.unary_unary_rpc_method_handler(answer_one)

    def _answering(self, method: str, context: Context, longest_s: float) -> Answering:
        return Answering(CallRecord(method, context, self._tracer), context, self._verifier, longest_s)

    async def _no_such_rpc(self, _: object, context: Context) -> None:
        record, error = CallRecord(UNKNOWN_METHOD, context, self._tracer), errors.unimplemented()
        record.write(error.code.name, error.reason)
        await _abort(context, error, record.request_id)


class Answering:
    """Surrounds the answer to a call: who calls is known inside, and whatever it raises is told as it should be.

    A class, and a timer of its own: contextlib and asyncio.timeout would take three times as long.
    """

    __slots__ = ("_context", "_is_late", "_is_over", "_longest_s", "_record", "_timer", "_verifier")

    def __init__(self, record: CallRecord, context: Context, verifier: TokenVerifier, longest_s: float) -> None:
        self._record, self._context, self._verifier, self._longest_s = record, context, verifier, longest_s
        self._is_late = self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    @types.coroutine
    def run(self, answer: Callable[[], Awaitable[T]]) -> Generator[Any, None, T]:
        """Answer, within the deadline. Its timer begins when there is something to wait for: from memory, never."""
        running, raised = self._run(answer), None
        while True:
            try:
                awaited = running.send(None) if raised is None else running.throw(raised)
            except StopIteration as over:
                return over.value  # type: ignore[no-any-return] # it is what _run returns
            if self._timer is None and not self._is_over:
                left_s = _time_left(self._context, self._longest_s)
                self._timer = asyncio.get_running_loop().call_later(left_s, self._expire, _task())
            try:
                yield awaited
                raised = None
            except BaseException as thrown:  # noqa: BLE001 - it is for what runs
                raised = thrown

    async def _run(self, answer: Callable[[], Awaitable[T]]) -> T:
        record = self._record
        self._context.set_trailing_metadata((("x-request-id", record.request_id),))
        try:
            record.caller = await self._verifier.verify(_token(record.metadata))
            _require(record.caller, METHOD_ROLES[record.method])
            _caller.set(record.caller)
            answered = await answer()
        except BaseException as raised:  # noqa: BLE001 - it is told
            await self._fail(raised)
        self._end()
        record.write("OK", None)
        return answered

    def _end(self) -> None:
        """From here on it cannot be late any more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._is_late = True
        task.cancel()

    async def _fail(self, raised: BaseException) -> NoReturn:
        self._end()
        record, task = self._record, _task()
        is_cancelled = (task.uncancel() if self._is_late else task.cancelling()) > 0
        if isinstance(raised, errors.DomainError):
            error = raised
        elif self._is_late and not is_cancelled and isinstance(raised, (TimeoutError, asyncio.CancelledError)):
            error = errors.deadline_exceeded()
        elif isinstance(raised, TimeoutError):
            error = errors.unavailable()
        # The call itself is cancelled, by its caller or the end of the server, and not only what it waited for;
        # or gRPC raises that nobody is there any more to be sent anything.
        elif isinstance(raised, grpc.aio.InternalError) or (
            isinstance(raised, asyncio.CancelledError) and is_cancelled
        ):
            late = "DEADLINE_EXCEEDED" if _time_left(self._context, self._longest_s) <= 0 else None
            record.write(late or "CANCELLED", late)
            raise asyncio.CancelledError from None
        else:
            error = record.fault(raised)
        record.write(error.code.name, error.reason)
        await _abort(self._context, error, record.request_id)


class CallRecord:
    """What the access log, the metrics and the trace tell of one call."""

    __slots__ = ("_span", "_started", "caller", "metadata", "method", "request_id")

    def __init__(self, method: str, context: Context, tracer: Tracer | None = None) -> None:
        self.method, self._started = method, time.perf_counter()
        sent: Any = context.invocation_metadata() or ()
        self.metadata: dict[str, str] = dict(sent)
        if "cookie" in self.metadata:  # HTTP/2 may split it: RFC 9113, section 8.2.3
            self.metadata["cookie"] = "; ".join(value for key, value in sent if key == "cookie")
        asked = self.metadata.get("x-request-id")
        is_good = isinstance(asked, str) and REQUEST_ID.fullmatch(asked)
        self.request_id: str = asked if asked and is_good else str(uuid_utils.uuid4())
        self.caller: Caller | None = None
        self._span = None if tracer is None else tracer.start_span(method, self.metadata, self.request_id)

    def fault(self, raised: BaseException) -> errors.DomainError:
        """Log an exception that nobody expected; return what the caller may know of it."""
        told = {"method": self.method, "request_id": self.request_id}
        log.error("unhandled exception", exc_info=raised, extra=told)
        return errors.internal()

    def write(self, code: str, reason: str | None) -> None:
        """Log and count the call, now that it is over."""
        if self._span is not None:
            self._span.end(code, reason)
        user_id = self.caller.user_id if self.caller is not None else None
        taken = time.perf_counter() - self._started
        telemetry.ended(Call(self.method, code, reason, time.time(), taken, self.request_id, user_id))


def _task() -> asyncio.Task[Any]:
    """Return the call's own task; each has one."""
    return asyncio.current_task()  # type: ignore[return-value]


def _time_left(context: Context, longest_s: float) -> float:
    asked = context.time_remaining()
    return longest_s if asked is None else min(asked, longest_s)


def _read(read: Callable[[bytes], Any], sent: bytes) -> Any:  # noqa: ANN401
    try:
        return read(sent)
    except DecodeError:
        raise errors.malformed_request() from None


def _require(caller: Caller, allowed: frozenset[Role]) -> None:
    if not caller.roles & allowed:
        names = " or ".join(sorted(role.value for role in allowed))
        raise errors.role_required(f"this call needs the role {names}")


def _token(metadata: dict[str, str]) -> str:
    authorization = metadata.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
    else:  # the first one, as Envoy reads it; http.cookies would give up at another cookie's quotes
        cookies = (crumb.strip().partition("=") for crumb in metadata.get("cookie", "").split(";"))
        session = next((value.strip('"') for name, _, value in cookies if name == SESSION_COOKIE), "")
        if session:
            return session
    raise errors.unauthenticated("a valid bearer token is required")


async def _abort(context: Context, error: errors.DomainError, request_id: str) -> NoReturn:
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    ]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
                    for each in error.violations
                ]
            )
        )
    trailing: list[tuple[str, str | bytes]] = [("x-request-id", request_id)]
    if error.retry_after_s is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=error.retry_after_s)))
        trailing.append(("retry-after", str(error.retry_after_s)))
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailing.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(error.code, error.message, tuple(trailing))


async def mark_created(context: Context) -> None:
    """Make the JSON answer HTTP 201; over gRPC it is a header that means nothing."""
    await context.send_initial_metadata((("x-http-code", "201"),))
