"""The gateway's own gRPC server, for Envoy alone: what it answers holds credentials in plaintext.

It has a port of its own, and every call must bring the secret that Envoy was given.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from llmrouter_server.gateway.ext_proc import PROCESS
from llmrouter_server.runtime.grpc_server import StartError, few_wake_ups
from llmrouter_server.runtime.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmrouter_server.runtime.interceptor import Context

log = logging.getLogger(__name__)

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
CHECK = f"/{HEALTH}/Check"
SECRET_HEADER = "x-llmrouter-gateway-secret"  # noqa: S105 - its name
MAX_MESSAGE_BYTES = 12 * 1024 * 1024
"""A whole chat request of 10 MiB, and what Envoy puts around it."""
DRAIN_S = 1.0
"""For decisions under way. Envoy's streams for clusters and reports have no end of their own."""


class GatewayServer:
    """Listens, beside the server for everybody."""

    def __init__(
        self,
        address: str,
        secret: str,
        handlers: Iterable[grpc.GenericRpcHandler],
        *,
        reuse_port: bool,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_leaving` tells whether Envoy should go to another replica: its health checks are told so."""
        self._address = address
        with few_wake_ups():
            self._server = grpc.aio.server(
                options=[
                    ("grpc.so_reuseport", int(reuse_port)),
                    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                    ("grpc.max_send_message_length", -1),  # Envoy's clusters grow with the providers
                    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ],
            )
        only_envoy = _OnlyEnvoy(secret, (*handlers, _health(is_leaving)))
        self._server.add_generic_rpc_handlers((only_envoy,))
        self._intake = Intake(self._server, only_envoy, (PROCESS, CHECK))

    async def start(self) -> None:
        """Begin to listen; StartError."""
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError:
            raise StartError(f"cannot listen on {self._address}: the address is taken or not this machine's") from None
        await self._intake.start()
        log.info("serving Envoy", extra={"address": self._address})

    async def stop(self) -> None:
        """Refuse new calls, and let decisions under way end."""
        async with asyncio.timeout(2 * DRAIN_S):
            await self._server.stop(DRAIN_S)


def _health(is_leaving: Callable[[], bool]) -> grpc.GenericRpcHandler:
    """Return what answers Envoy's health checks."""
    response = health_pb2.HealthCheckResponse

    async def check(_: object, __: Context) -> health_pb2.HealthCheckResponse:
        return response(status=response.NOT_SERVING if is_leaving() else response.SERVING)

    method = grpc.unary_unary_rpc_method_handler(
        check, health_pb2.HealthCheckRequest.FromString, response.SerializeToString
    )
    return grpc.method_handlers_generic_handler(HEALTH, {"Check": method})


class _OnlyEnvoy(grpc.GenericRpcHandler):
    """Turns everybody away who does not know the secret: a handler, since an interceptor would cost each call more."""

    def __init__(self, secret: str, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._secret, self._handlers = secret.encode(), handlers
        self._refusing: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(_refuse)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        for name, value in details.invocation_metadata or ():
            if name == SECRET_HEADER:
                given = value.encode() if isinstance(value, str) else value
                if hmac.compare_digest(given, self._secret):
                    found = (handler.service(details) for handler in self._handlers)
                    return next((each for each in found if each is not None), None)
        return self._refusing


async def _refuse(_: object, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this port is for Envoy, which knows the gateway's secret")
