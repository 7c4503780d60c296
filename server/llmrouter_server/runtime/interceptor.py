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
from dataclasses import dataclass
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
Metadata: TypeAlias = Any
"""Pairs of a name and a value, as gRPC gives them; None when there are none."""
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
        self._rpcs: dict[str, Rpc] = {}
        self._open: dict[str, Handler] = {}
        self._unknown: Handler = grpc.stream_stream_rpc_method_handler(self._no_such_rpc)
        """It answers as a stream, which need not wait for a request."""

    @property
    def methods(self) -> Sequence[str]:
        """What was added."""
        return (*self._rpcs, *self._open)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: what generated code adds here, it adds as registered methods too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add a service's RPCs, by their names. Those of OPEN_SERVICES are answered as they are."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            if service in OPEN_SERVICES:
                self._open[method] = handler
            else:
                self._rpcs[method] = _rpc(method, handler, self._longest_s)

    def service(self, details: grpc.HandlerCallDetails) -> Any:  # noqa: ANN401 - for gRPC, a handler of this call alone
        rpc = self._rpcs.get(details.method)
        if rpc is None:
            return self._open.get(details.method, self._unknown)
        return Answering(rpc, details.invocation_metadata, self._verifier, self._tracer)

    async def _no_such_rpc(self, _: object, context: Context) -> None:
        record = CallRecord(UNKNOWN_METHOD, context.invocation_metadata(), self._tracer)
        error = errors.unimplemented()
        record.write(error.code.name, error.reason)
        await _abort(context, error, record.request_id)


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC, from bytes to bytes: what cannot be read or written is an error like others."""

    method: str
    is_streamed: bool
    """Whether `answer` sends all parts itself, and so sees what ends the sending, which a generator would not."""
    longest_s: float
    read: Callable[[bytes], Any]
    answer: Callable[[Any, Context], Awaitable[Any]]
    write: Callable[[Any], bytes | None]


def _rpc(method: str, handler: Handler, longest_s: float) -> Rpc:
    one: Callable[..., Any] | None = handler.unary_unary
    many: Callable[..., Any] | None = handler.unary_stream
    read, write = handler.request_deserializer, handler.response_serializer
    read, write = getattr(one, "read", read), bytes if hasattr(one, "read") else write
    if read is None or write is None or (one is None and many is None):
        raise NotImplementedError(f"{method} takes a stream, or no protobuf message; neither is wrapped")
    if one is not None:
        return Rpc(method, False, longest_s, read, one, write)

    async def send(request: Any, context: Context) -> None:  # noqa: ANN401
        async with contextlib.aclosing(many(request, context)) as parts:  # type: ignore[misc] # it is not None
            async for part in parts:
                await context.write(write(part))

    return Rpc(method, True, LONGEST_STREAM_S, read, send, lambda _: None)


class Answering:
    """Surrounds the answer to a call: who calls is known inside, and whatever it raises is told as it should be.

    gRPC takes it for the handler of an RPC, but it is of one call, and so has the metadata that gRPC would make again
    for each who asks. A class, and a timer of its own: contextlib and asyncio.timeout would take three times as long.
    """

    __slots__ = ("_context", "_is_late", "_is_over", "_metadata", "_record", "_rpc", "_timer", "_tracer", "_verifier")

    request_streaming = False
    request_deserializer = response_serializer = None

    def __init__(self, rpc: Rpc, metadata: Metadata, verifier: TokenVerifier, tracer: Tracer | None) -> None:
        self._rpc, self._metadata, self._verifier, self._tracer = rpc, metadata, verifier, tracer
        self._is_late = self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def response_streaming(self) -> bool:
        """Whether gRPC is to call `unary_stream`."""
        return self._rpc.is_streamed

    @types.coroutine
    def _in_time(self, sent: bytes) -> Generator[Any, None, bytes | None]:
        """Answer, within the deadline. Its timer begins when there is something to wait for: from memory, never."""
        running, raised = self._answer(sent), None
        while True:
            try:
                awaited = running.send(None) if raised is None else running.throw(raised)
            except StopIteration as over:
                return over.value  # type: ignore[no-any-return] # it is what _answer returns
            if self._timer is None and not self._is_over:
                left_s = _time_left(self._context, self._rpc.longest_s)
                self._timer = asyncio.get_running_loop().call_later(left_s, self._expire, _task())
            try:
                yield awaited
                raised = None
            except BaseException as thrown:  # noqa: BLE001 - it is for what runs
                raised = thrown

    async def unary_unary(self, sent: bytes, context: Context) -> bytes | None:
        """Answer."""
        self._context, self._record = context, CallRecord(self._rpc.method, self._metadata, self._tracer)
        return await self._in_time(sent)

    unary_stream = unary_unary

    async def _answer(self, sent: bytes) -> bytes | None:
        rpc, record = self._rpc, self._record
        if record.id_is_made:  # who brought one knows it, and metadata costs a twentieth of a call
            self._context.set_trailing_metadata((("x-request-id", record.request_id),))
        try:
            record.caller = await self._verifier.verify(_token(record.metadata))
            _require(record.caller, METHOD_ROLES[rpc.method])
            _caller.set(record.caller)
            answered = rpc.write(await rpc.answer(_read(rpc.read, sent), self._context))
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
            late = "DEADLINE_EXCEEDED" if _time_left(self._context, self._rpc.longest_s) <= 0 else None
            record.write(late or "CANCELLED", late)
            raise asyncio.CancelledError from None
        else:
            error = record.fault(raised)
        record.write(error.code.name, error.reason)
        await _abort(self._context, error, record.request_id)


class CallRecord:
    """What the access log, the metrics and the trace tell of one call."""

    __slots__ = ("_span", "_started", "caller", "id_is_made", "metadata", "method", "request_id")

    def __init__(self, method: str, sent: Metadata, tracer: Tracer | None = None) -> None:
        self.method, self._started = method, time.perf_counter()
        sent = sent or ()
        self.metadata: dict[str, str] = dict(sent)
        if "cookie" in self.metadata:  # HTTP/2 may split it: RFC 9113, section 8.2.3
            self.metadata["cookie"] = "; ".join(value for key, value in sent if key == "cookie")
        asked = self.metadata.get("x-request-id")
        self.id_is_made = not (isinstance(asked, str) and REQUEST_ID.fullmatch(asked))
        self.request_id: str = str(uuid_utils.uuid4()) if asked is None or self.id_is_made else asked
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
