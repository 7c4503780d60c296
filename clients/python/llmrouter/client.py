"""The synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import grpc

from llmrouter.connection import DEFAULT_TIMEOUT_S, STREAM_TIMEOUT_S, Connection, Metadata, metadata_of
from llmrouter.errors import Trailing, error_of
from llmrouter.v2.audit_service_pb2_grpc import AuditServiceStub
from llmrouter.v2.byok_service_pb2_grpc import ByokServiceStub
from llmrouter.v2.credential_service_pb2_grpc import CredentialServiceStub
from llmrouter.v2.health_service_pb2_grpc import HealthServiceStub
from llmrouter.v2.model_service_pb2_grpc import ModelServiceStub
from llmrouter.v2.provider_service_pb2_grpc import ProviderServiceStub
from llmrouter.v2.routing_service_pb2_grpc import RoutingServiceStub
from llmrouter.v2.settings_service_pb2_grpc import SettingsServiceStub
from llmrouter.v2.usage_service_pb2_grpc import UsageServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class Client:
    """Speaks to llmrouter over gRPC; safe to share between threads.

    Each attribute is a generated, typed stub: `client.routing.Route(RouteRequest())`. A failed call raises a
    LlmrouterError. Every call takes `timeout` (seconds) and `metadata` as keywords.
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | Callable[[], str],
        timeout: float = DEFAULT_TIMEOUT_S,
        retries: bool = True,
        insecure: bool = False,
        root_certificates: bytes | None = None,
    ) -> None:
        """Prepare a connection, which is made with the first call.

        `token` is a JSON Web Token, or a function that returns one and is asked before each call. The other arguments
        are those of Connection; ValueError when they make no sense.
        """
        connection = Connection(
            target=target,
            timeout=timeout,
            retries=retries,
            insecure=insecure,
            root_certificates=root_certificates,
        )
        credentials = connection.credentials
        self._channel = (
            grpc.insecure_channel(target, connection.options)
            if credentials is None
            else grpc.secure_channel(target, credentials, connection.options)
        )
        calls = cast("grpc.Channel", _Calls(self._channel, token, timeout))
        self.providers = ProviderServiceStub(calls)
        self.models = ModelServiceStub(calls)
        self.health = HealthServiceStub(calls)
        self.byok = ByokServiceStub(calls)
        self.credentials = CredentialServiceStub(calls)
        self.audit = AuditServiceStub(calls)
        self.settings = SettingsServiceStub(calls)
        self.routing = RoutingServiceStub(calls)
        self.usage = UsageServiceStub(calls)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Calls:
    """What the generated stubs take for a channel: adds token, deadline and request id, and translates errors."""

    def __init__(self, channel: grpc.Channel, token: str | Callable[[], str], timeout: float) -> None:
        self._channel, self._token, self._timeout = channel, token, timeout

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:  # noqa: ANN401
        send = self._channel.unary_unary(method, *arguments, **options)

        def call(request: Any, *, timeout: float | None = None, metadata: Metadata | None = None) -> Any:  # noqa: ANN401
            token = self._token if isinstance(self._token, str) else self._token()
            sent, request_id = metadata_of(token, metadata)
            try:
                return send(request, timeout=self._timeout if timeout is None else timeout, metadata=sent)
            except grpc.RpcError as error:
                trailing = cast("Trailing", error.trailing_metadata())
                raise error_of(error.code(), error.details(), trailing, request_id) from error

        return call

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Iterator[Any]]:  # noqa: ANN401
        send = self._channel.unary_stream(method, *arguments, **options)

        def call(request: Any, *, timeout: float | None = None, metadata: Metadata | None = None) -> Iterator[Any]:  # noqa: ANN401
            token = self._token if isinstance(self._token, str) else self._token()
            sent, request_id = metadata_of(token, metadata)
            stream = send(request, timeout=STREAM_TIMEOUT_S if timeout is None else timeout, metadata=sent)
            try:
                yield from stream
            except grpc.RpcError as error:
                trailing = cast("Trailing", error.trailing_metadata())
                raise error_of(error.code(), error.details(), trailing, request_id) from error
            finally:
                stream.cancel()

        return call
