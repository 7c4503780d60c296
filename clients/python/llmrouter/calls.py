"""The calls of the synchronous client: token, deadline, request id and exceptions around each RPC."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

import grpc

from llmrouter import service_config
from llmrouter.errors import REQUEST_ID_KEY, LlmrouterError, Trailing, Unauthenticated, error_of, new_request_id
from llmrouter.tokens import RefreshingToken, Secret, bearer, require_token

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from google.api.httpbody_pb2 import HttpBody
    from google.protobuf.message import Message

RequestT = TypeVar("RequestT", bound="Message")
ResponseT = TypeVar("ResponseT", bound="Message")
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""What else to send with a call, for instance `x-request-id` or `traceparent`."""
AUTHORIZATION = "authorization"


class Channel:
    """A connection with a token."""

    def __init__(self, channel: grpc.Channel, token: str | Callable[[], str], timeout_s: float | None) -> None:
        require_token(token)
        self._channel, self._token, self._timeout_s = channel, token, timeout_s

    def unary(self, method: str, request: type[RequestT], response: type[ResponseT]) -> Unary[RequestT, ResponseT]:
        """Return what calls an RPC that has one answer."""
        send = self._channel.unary_unary(method, serializer(request), response.FromString)
        return Unary(self, send, self._timeout_s or service_config.timeout_s(method))

    def stream(self, method: str, request: type[RequestT], response: type[ResponseT]) -> Stream[RequestT, ResponseT]:
        """Return what calls an RPC that has a stream of answers."""
        send = self._channel.unary_stream(method, serializer(request), response.FromString)
        return Stream(self, send, service_config.timeout_s(method))

    def authorization(self) -> Secret:
        """Return what to send of the token."""
        return bearer(self._token if isinstance(self._token, str) else self._token())

    def renewed(self, refused: Secret) -> Secret | None:
        """Return what to send instead of a refused token, or None when there is nothing else."""
        if isinstance(self._token, str):
            return None
        if isinstance(self._token, RefreshingToken):
            self._token.forget(refused.removeprefix("Bearer "))
        again = self.authorization()
        return None if again == refused else again


class Unary(Generic[RequestT, ResponseT]):
    """An RPC that has one answer."""

    def __init__(
        self, channel: Channel, send: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT], timeout_s: float
    ) -> None:
        self._channel, self._send, self._timeout_s = channel, send, timeout_s

    def __call__(
        self, request: RequestT, *, timeout: float | None = None, metadata: Headers | None = None
    ) -> ResponseT:
        """Call it, for at most `timeout` seconds; LlmrouterError when it fails."""
        authorization = self._channel.authorization()
        others, request_id = headers_of(metadata)
        deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
        try:
            return self._try(request, deadline, authorization, others, request_id)
        except Unauthenticated:
            again = self._channel.renewed(authorization)
            if again is None:
                raise
        return self._try(request, deadline, again, others, request_id)

    def _try(
        self, request: RequestT, deadline: float, authorization: Secret, others: Headers, request_id: str
    ) -> ResponseT:
        left = max(0.0, deadline - time.monotonic())
        try:
            return self._send(request, timeout=left, metadata=((AUTHORIZATION, authorization), *pairs(others)))
        except grpc.RpcError as error:
            raise failure(error, request_id) from error


class Stream(Generic[RequestT, ResponseT]):
    """An RPC that has a stream of answers."""

    def __init__(
        self, channel: Channel, send: grpc.UnaryStreamMultiCallable[RequestT, ResponseT], timeout_s: float
    ) -> None:
        self._channel, self._send, self._timeout_s = channel, send, timeout_s

    def __call__(
        self, request: RequestT, *, timeout: float | None = None, metadata: Headers | None = None
    ) -> Generator[ResponseT, None, None]:
        """Call it when the first answer is asked for, for at most `timeout` seconds; LlmrouterError when it fails."""
        authorization = self._channel.authorization()
        others, request_id = headers_of(metadata)
        deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
        has_begun = False
        try:
            for part in self._try(request, deadline, authorization, others, request_id):
                has_begun = True
                yield part
        except Unauthenticated:
            again = None if has_begun else self._channel.renewed(authorization)
            if again is None:
                raise
        else:
            return
        yield from self._try(request, deadline, again, others, request_id)

    def _try(
        self, request: RequestT, deadline: float, authorization: Secret, others: Headers, request_id: str
    ) -> Generator[ResponseT, None, None]:
        left = max(0.0, deadline - time.monotonic())
        stream = self._send(request, timeout=left, metadata=((AUTHORIZATION, authorization), *pairs(others)))
        try:
            yield from stream
        except grpc.RpcError as error:
            raise failure(error, request_id) from error
        finally:
            stream.cancel()


def contents(parts: Generator[HttpBody, None, None]) -> Generator[bytes, None, None]:
    """Return the bytes of a stream of bodies; closing it ends the call."""
    with closing(parts):
        for part in parts:
            yield bytes(part.data)


def serializer(request: type[RequestT]) -> Callable[[RequestT], bytes]:
    """Return what makes bytes of a request."""
    return cast("Callable[[RequestT], bytes]", request.SerializeToString)


def headers_of(given: Headers | None) -> tuple[Headers, str]:
    """Return what to send besides the token, and the request id that is part of it.

    ValueError, which does not show the value, for what no header can be.
    """
    kept = [(name.lower(), value) for name, value in pairs(given or ()) if name.lower() != AUTHORIZATION]
    for name, value in kept:
        if not re.fullmatch(r"[a-z0-9_.-]+", name) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name!r} is no header, or its value holds more than printable ASCII")
    request_id = next((value for name, value in kept if name == REQUEST_ID_KEY), None)
    if request_id is None:
        request_id = new_request_id()
        kept.append((REQUEST_ID_KEY, request_id))
    return kept, request_id


def pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    """Return headers one by one."""
    return headers.items() if isinstance(headers, Mapping) else headers


def failure(error: grpc.RpcError, request_id: str) -> LlmrouterError:
    """Make the exception of a failed call."""
    trailing = cast("Trailing", error.trailing_metadata())
    return error_of(error.code(), error.details(), trailing, request_id)
