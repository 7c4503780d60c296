"""The composition root: settings -> pool -> stores -> services -> grpc.aio server. All wiring is here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from llmrouter.v2 import (
    byok_service_pb2_grpc,
    model_service_pb2_grpc,
    provider_service_pb2_grpc,
    routing_service_pb2_grpc,
    settings_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from llmrouter_server.byok.cipher import Cipher
from llmrouter_server.byok.service import ByokService
from llmrouter_server.byok.store import KeyStore
from llmrouter_server.catalog.service import ModelService, ProviderService
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.routing.service import RoutingService
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.runtime import telemetry, workers
from llmrouter_server.runtime.auth import KeySet, TokenVerifier
from llmrouter_server.runtime.database import Database, DatabaseUnusableError
from llmrouter_server.runtime.interceptor import CallInterceptor
from llmrouter_server.settings.service import SettingsService
from llmrouter_server.settings.store import SettingsStore
from llmrouter_server.usage.recorder import UsageRecorder
from llmrouter_server.usage.service import UsageService
from llmrouter_server.usage.store import UsageStore

if TYPE_CHECKING:
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.config import Settings

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1_048_576
CLOSING_S = 10.0
"""How long a server may take to write and close what is left, after it has drained."""
SERVICES = ("ProviderService", "ModelService", "ByokService", "SettingsService", "RoutingService", "UsageService")
SERVICE_NAMES = tuple(f"llmrouter.v2.{name}" for name in SERVICES)


def serve(settings: Settings, worker_count: int = 1) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code: 0 after a clean drain, 1 when it could not start."""
    telemetry.configure_logging()
    if worker_count > 1:
        patience_s = settings.drain_notice_s + settings.drain_timeout_s + CLOSING_S
        return workers.supervise(worker_count, settings.listen_address, settings.metrics_address, patience_s=patience_s)
    try:
        uvloop.run(_serve(settings))
    except (DatabaseUnusableError, StartError) as error:
        log.error("%s", error)  # noqa: TRY400 - one clear sentence; the traceback tells an operator nothing
        return 1
    return 0


class StartError(Exception):
    """The server cannot start; the message says in one sentence why."""


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    database = Database(settings.database_url, min_size=settings.db_pool_min, max_size=settings.db_pool_max)
    keys = KeySet(settings.auth_jwks)
    async with contextlib.AsyncExitStack() as stack:
        await _enter(stack, database)
        await _enter(stack, keys)
        recorder = UsageRecorder(UsageStore(database))
        await _enter(stack, recorder)
        server = _build(settings, database, keys, recorder)
        health = _add_health(server, database)
        _listen(server, settings)
        await server.start()
        gc.collect()
        gc.freeze()  # what is here now stays; the collector need not look at it again
        log.info("serving", extra={"address": settings.listen_address})
        await stop.wait()
        log.info("draining")
        await health.enter_graceful_shutdown()
        await asyncio.sleep(settings.drain_notice_s)
        await server.stop(settings.drain_timeout_s)
    log.info("stopped")


async def _enter(stack: contextlib.AsyncExitStack, part: Database | KeySet | UsageRecorder) -> None:
    stack.push_async_callback(part.stop)
    await part.start()


def _build(settings: Settings, database: Database, keys: KeySet, recorder: UsageRecorder) -> grpc.aio.Server:
    verifier = TokenVerifier(
        keys,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        roles_claim=settings.auth_roles_claim,
    )
    catalog, usage = CatalogStore(database), UsageStore(database)

    async def month_spend(user_id: UUID) -> Decimal:
        return await usage.spend_since(user_id, _now().date().replace(day=1))

    server = grpc.aio.server(
        interceptors=[CallInterceptor(verifier, longest_s=settings.request_timeout_s)],
        options=[
            ("grpc.so_reuseport", int(settings.reuse_port)),
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    providers = ProviderService(catalog, allow_private_endpoints=settings.allow_private_endpoints)
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(providers, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(catalog), server)
    byok = ByokService(KeyStore(database), Cipher(settings.byok_encryption_keys))
    byok_service_pb2_grpc.add_ByokServiceServicer_to_server(byok, server)
    preferences = SettingsService(SettingsStore(database), month_spend)
    settings_service_pb2_grpc.add_SettingsServiceServicer_to_server(preferences, server)
    # Nothing watches the providers' health yet: none is known to be unhealthy.
    routing = RoutingService(RoutingStore(database, catalog), unhealthy_providers=frozenset)
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(routing, server)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(UsageService(usage, recorder, _now), server)
    reflection.enable_server_reflection(
        (*SERVICE_NAMES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    return server


def _add_health(server: grpc.aio.Server, database: Database) -> health_aio.HealthServicer:
    """Answer health checks, overall and for each service: serving while the database answers."""
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    tasks: set[asyncio.Task[Any]] = set()

    async def tell(status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *SERVICE_NAMES):
            await health.set(name, status)

    def follow(up: bool) -> None:
        telemetry.DATABASE_UP.set(int(up))
        status = health_pb2.HealthCheckResponse
        task = asyncio.create_task(tell(status.SERVING if up else status.NOT_SERVING))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    database.on_change(follow)
    return health


def _listen(server: grpc.aio.Server, settings: Settings) -> None:
    try:
        server.add_insecure_port(settings.listen_address)
        if settings.metrics_address is not None:
            telemetry.serve_metrics(settings.metrics_address)
    except (RuntimeError, OSError):
        addresses = settings.listen_address + (f" or {settings.metrics_address}" if settings.metrics_address else "")
        raise StartError(f"cannot listen on {addresses}: the address is taken or not this machine's") from None


def _now() -> datetime:
    return datetime.now(UTC)
