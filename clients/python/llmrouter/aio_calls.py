"""The calls of the asynchronous client: token, deadline, request id and exceptions around each RPC."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from llmrouter import service_config
from llmrouter.calls import AUTHORIZATION, Headers, failure, headers_of, pairs, serializer
from llmrouter.errors import Unauthenticated
from llmrouter.tokens import AsyncRefreshingToken, RefreshingToken, Secret, bearer, require_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from google.api.httpbody_pb2 import HttpBody
    from google.protobuf.message import Message

RequestT = TypeVar("RequestT", bound="Message")
ResponseT = TypeVar("ResponseT", bound="Message")


class AsyncChannel:
    """A connection with a token, for one event loop."""

    def __init__(
        self, channel: grpc.aio.Channel, token: str | Callable[[], str | Awaitable[str]], timeout_s: float | None
    ) -> None:
        require_token(token)
        self._channel, self._token, self._timeout_s = channel, token, timeout_s
        self._loop = asyncio.get_running_loop()

    def unary(self, method: str, request: type[RequestT], response: type[ResponseT]) -> AsyncUnary[RequestT, ResponseT]:
        """Return what calls an RPC that has one answer."""
        send = self._channel.unary_unary(method, serializer(request), response.FromString)
        return AsyncUnary(self, send, self._timeout_s or service_config.timeout_s(method))

    def stream(
        self, method: str, request: type[RequestT], response: type[ResponseT]
    ) -> AsyncStream[RequestT, ResponseT]:
        """Return what calls an RPC that has a stream of answers."""
        send = self._channel.unary_stream(method, serializer(request), response.FromString)
        return AsyncStream(self, send, service_config.timeout_s(method))

    async def authorization(self) -> Secret:
        """Return what to send of the token."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one in each")
        if isinstance(self._token, str):
            return bearer(self._token)
        token = self._token()
        return bearer(await token if inspect.isawaitable(token) else token)

    async def renewed(self, refused: Secret) -> Secret | None:
        """Return what to send instead of a refused token, or None when there is nothing else."""
        if isinstance(self._token, str):
            return None
        if isinstance(self._token, RefreshingToken | AsyncRefreshingToken):
            self._token.forget(refused.removeprefix("Bearer "))
        again = await self.authorization()
        return None if again == refused else again


class AsyncUnary(Generic[RequestT, ResponseT]):
    """An RPC that has one answer."""

    def __init__(
        self, channel: AsyncChannel, send: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], timeout_s: float
    ) -> None:
        self._channel, self._send, self._timeout_s = channel, send, timeout_s

    async def __call__(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes gRPC's own deadline
        metadata: Headers | None = None,
    ) -> ResponseT:
        """Call it, for at most `timeout` seconds; LlmrouterError when it fails."""
        authorization = await self._channel.authorization()
        others, request_id = headers_of(metadata)
        deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
        try:
            return await self._try(request, deadline, authorization, others, request_id)
        except Unauthenticated:
            again = await self._channel.renewed(authorization)
            if again is None:
                raise
        return await self._try(request, deadline, again, others, request_id)

    async def _try(
        self, request: RequestT, deadline: float, authorization: Secret, others: Headers, request_id: str
    ) -> ResponseT:
        left = max(0.0, deadline - time.monotonic())
        try:
            return await self._send(request, timeout=left, metadata=((AUTHORIZATION, authorization), *pairs(others)))
        except grpc.aio.AioRpcError as error:
            raise failure(error, request_id) from error


class AsyncStream(Generic[RequestT, ResponseT]):
    """An RPC that has a stream of answers."""

    def __init__(
        self, channel: AsyncChannel, send: grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT], timeout_s: float
    ) -> None:
        self._channel, self._send, self._timeout_s = channel, send, timeout_s

    async def __call__(
        self,
        request: RequestT,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - becomes gRPC's own deadline
        metadata: Headers | None = None,
    ) -> AsyncGenerator[ResponseT, None]:
        """Call it when the first answer is asked for, for at most `timeout` seconds; LlmrouterError when it fails."""
        authorization = await self._channel.authorization()
        others, request_id = headers_of(metadata)
        deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
        has_begun = False
        try:
            async with aclosing(self._try(request, deadline, authorization, others, request_id)) as parts:
                async for part in parts:
                    has_begun = True
                    yield part
        except Unauthenticated:
            again = None if has_begun else await self._channel.renewed(authorization)
            if again is None:
                raise
        else:
            return
        async with aclosing(self._try(request, deadline, again, others, request_id)) as parts:
            async for part in parts:
                yield part

    async def _try(
        self, request: RequestT, deadline: float, authorization: Secret, others: Headers, request_id: str
    ) -> AsyncGenerator[ResponseT, None]:
        left = max(0.0, deadline - time.monotonic())
        stream = self._send(request, timeout=left, metadata=((AUTHORIZATION, authorization), *pairs(others)))
        try:
            async for part in stream:
                yield part
        except grpc.aio.AioRpcError as error:
            raise failure(error, request_id) from error
        finally:
            stream.cancel()


async def async_contents(parts: AsyncGenerator[HttpBody, None]) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a stream of bodies; closing it ends the call."""
    async with aclosing(parts):
        async for part in parts:
            yield bytes(part.data)
