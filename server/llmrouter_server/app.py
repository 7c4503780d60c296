"""The composition root: settings -> pool -> stores -> services -> grpc.aio server. All wiring is here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import signal
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import uvloop

from llmrouter.v2 import (
    audit_service_pb2_grpc,
    byok_service_pb2_grpc,
    credential_service_pb2_grpc,
    health_service_pb2_grpc,
    model_service_pb2_grpc,
    provider_service_pb2_grpc,
    routing_rule_service_pb2_grpc,
    routing_service_pb2_grpc,
    settings_service_pb2_grpc,
    usage_service_pb2_grpc,
)
from llmrouter_server.audit.changes import AdminChangeStore
from llmrouter_server.audit.log import AuditLog
from llmrouter_server.audit.service import AuditService
from llmrouter_server.audit.store import KeyReadStore
from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.byok import live_keys
from llmrouter_server.byok.cipher import Cipher
from llmrouter_server.byok.credentials import Credentials
from llmrouter_server.byok.live_keys import PlatformKeys
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.byok.probe import Probe
from llmrouter_server.byok.service import ByokService, CredentialService
from llmrouter_server.byok.store import KeyStore
from llmrouter_server.byok.verification import KeyVerifier
from llmrouter_server.catalog import live as live_catalog
from llmrouter_server.catalog.live import LiveCatalog
from llmrouter_server.catalog.past import PastSnapshots
from llmrouter_server.catalog.service import ModelService, ProviderService
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.gateway.access_log import AccessLog
from llmrouter_server.gateway.clusters import Upstreams
from llmrouter_server.gateway.decision import KEPT_OPEN, Decider, Patience
from llmrouter_server.gateway.discovery import ClusterDiscovery
from llmrouter_server.gateway.ext_proc import ExtProc
from llmrouter_server.gateway.journal import Journal
from llmrouter_server.gateway.models import UsableModels
from llmrouter_server.gateway.plan import PlansUnderWay
from llmrouter_server.gateway.reporting import Reporter
from llmrouter_server.gateway.server import GatewayServer
from llmrouter_server.gateway.store import GatewayRequestStore, OpenRequests
from llmrouter_server.health.monitor import HealthMonitor
from llmrouter_server.health.service import HealthService
from llmrouter_server.health.store import HealthStore
from llmrouter_server.routing import state as user_state
from llmrouter_server.routing.log import KEPT_DAYS, DecisionLog
from llmrouter_server.routing.router import Router
from llmrouter_server.routing.service import RoutingService
from llmrouter_server.routing.state import UserStates
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.rules.service import RoutingRuleService
from llmrouter_server.rules.store import RuleStore
from llmrouter_server.runtime import grpc_server, telemetry, tracing
from llmrouter_server.runtime.auth import KeySet, TokenVerifier
from llmrouter_server.runtime.database import Database, DatabaseUnusableError
from llmrouter_server.runtime.grpc_server import StartError
from llmrouter_server.runtime.intake import Intake
from llmrouter_server.runtime.interceptor import CallInterceptor
from llmrouter_server.runtime.maintenance import Maintenance
from llmrouter_server.runtime.notifications import Notifications
from llmrouter_server.settings.service import SettingsService
from llmrouter_server.settings.store import SettingsStore
from llmrouter_server.usage.attempts import attempt_of
from llmrouter_server.usage.recorder import UsageRecorder
from llmrouter_server.usage.service import UsageService
from llmrouter_server.usage.store import UsageStore
from llmrouter_server.usage.upkeep import UsageUpkeep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.config import Settings

log = logging.getLogger(__name__)

SPARE = timedelta(minutes=2)
"""How much longer money is held for a chat request than its report is waited for: its estimate comes in between."""

ADD_TO_SERVER: Mapping[str, Callable[[Any, Any], None]] = {
    "ProviderService": provider_service_pb2_grpc.add_ProviderServiceServicer_to_server,
    "HealthService": health_service_pb2_grpc.add_HealthServiceServicer_to_server,
    "ModelService": model_service_pb2_grpc.add_ModelServiceServicer_to_server,
    "RoutingRuleService": routing_rule_service_pb2_grpc.add_RoutingRuleServiceServicer_to_server,
    "ByokService": byok_service_pb2_grpc.add_ByokServiceServicer_to_server,
    "CredentialService": credential_service_pb2_grpc.add_CredentialServiceServicer_to_server,
    "AuditService": audit_service_pb2_grpc.add_AuditServiceServicer_to_server,
    "SettingsService": settings_service_pb2_grpc.add_SettingsServiceServicer_to_server,
    "RoutingService": routing_service_pb2_grpc.add_RoutingServiceServicer_to_server,
    "UsageService": usage_service_pb2_grpc.add_UsageServiceServicer_to_server,
}
GC_THRESHOLDS = 5000, 10, 10
"""Python's own are 700, 10, 10: the many thousand objects that wait to be written would be looked at too often."""
SERVICE_NAMES = tuple(f"llmrouter.v2.{name}" for name in ADD_TO_SERVER)


class Part(Protocol):
    """Something that runs beside the server."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End, bounded in time."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code: 0 after a clean drain, 1 when it could not start."""
    telemetry.configure_logging()
    grpc_server.configure_logging()
    try:
        uvloop.run(_serve(settings))
    except (DatabaseUnusableError, StartError, tracing.TracingError) as error:
        log.error("%s", error)  # noqa: TRY400 - one clear sentence; the traceback tells an operator nothing
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    leaves_at = math.inf

    def leave() -> None:
        nonlocal leaves_at
        leaves_at = min(leaves_at, loop.time() + settings.drain_notice_s + settings.drain_timeout_s)
        stop.set()

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, leave)
    tracer = tracing.configure(settings.otlp_endpoint) if settings.otlp_endpoint else None
    database = Database(settings.database_url, min_size=settings.db_pool_min, max_size=settings.db_pool_max)
    keys = KeySet(settings.auth_jwks)
    verifier = TokenVerifier(
        keys, issuer=settings.auth_issuer, audience=settings.auth_audience, roles_claim=settings.auth_roles_claim
    )
    services, parts = _build(settings, database, verifier, lambda: leaves_at)
    interceptor = CallInterceptor(verifier, longest_s=settings.request_timeout_s, tracer=tracer)
    async with contextlib.AsyncExitStack() as stack:
        beside: tuple[Part, ...] = (*((tracer,) if tracer else ()), database, keys, *parts)
        for part in beside:
            stack.push_async_callback(part.stop)
            await part.start()
        server = grpc_server.make_server(interceptor, reuse_port=settings.reuse_port)
        for name, add in ADD_TO_SERVER.items():
            add(services[name], interceptor)
        grpc_server.add_reflection(interceptor, SERVICE_NAMES)
        health = grpc_server.add_health(interceptor, database, SERVICE_NAMES)
        gc.set_threshold(*GC_THRESHOLDS)
        gc.collect()
        gc.freeze()  # what is here now stays; the collector need not look at it again
        intake = Intake(server, interceptor, interceptor.methods)
        await grpc_server.run(server, intake, health, settings, stop)
    log.info("stopped")


def _build(
    settings: Settings, database: Database, tokens: TokenVerifier, leaves_at: Callable[[], float]
) -> tuple[Mapping[str, object], tuple[Part, ...]]:
    """Make the services, and what runs beside them, in the order of starting."""
    cipher = Cipher(settings.byok_encryption_keys)
    catalog, keys, reads, budget = (
        CatalogStore(database),
        KeyStore(database),
        KeyReadStore(database),
        BudgetStore(database),
    )
    usage, routing, health_store = UsageStore(database), RoutingStore(database), HealthStore(database)

    # What is kept in memory, and how it is kept true.
    live = LiveCatalog(catalog, lambda: notifications.is_live)
    users = UserStates(routing.user_state, is_told=lambda: notifications.is_live, most=settings.cached_users)
    platform_keys = PlatformKeys(keys.platform_keys, is_told=lambda: notifications.is_live)

    def forget_everything() -> None:
        catalog_changed()
        users.forget_all()
        platform_keys.changed()

    clusters = ClusterDiscovery(Upstreams(live.current))

    def catalog_changed(number: str = "") -> None:
        live.changed(number)
        clusters.changed(number)

    notifications = Notifications(
        settings.database_url,
        {
            live_catalog.CHANNEL: catalog_changed,
            user_state.USER_CHANNEL: users.user_changed,
            user_state.SPEND_CHANNEL: users.spend_changed,
            live_keys.CHANNEL: platform_keys.changed,
        },
        on_live=forget_everything,
    )
    monitor = HealthMonitor(health_store, live.current, rest_s=settings.provider_rest_s)

    # What is written by tasks of its own.
    audit, decisions = AuditLog(reads), DecisionLog(routing)
    recorder = UsageRecorder(usage, observe=lambda records: monitor.observe(map(attempt_of, records)), keys=keys)

    router = Router(live, users, monitor, decisions, platform_keys=platform_keys)

    async def month_spend(user_id: UUID) -> Decimal:
        return await usage.spend(user_id, _today().replace(day=1))

    credentials = Credentials(keys, cipher, audit, _now)
    verifier = KeyVerifier(keys, credentials, Probe(allow_private=settings.allow_private_endpoints), _now)
    services = {
        "ProviderService": ProviderService(
            catalog,
            PlatformKeyStore(database, cipher, platform_keys.changed),
            live.refresh,
            allow_private_endpoints=settings.allow_private_endpoints,
        ),
        "HealthService": HealthService(monitor, catalog),
        "ModelService": ModelService(catalog, live.refresh),
        "RoutingRuleService": RoutingRuleService(RuleStore(database), live.refresh),
        "ByokService": ByokService(keys, cipher, verifier, users.forget),
        "CredentialService": CredentialService(credentials),
        "AuditService": AuditService(reads, AdminChangeStore(database)),
        "SettingsService": SettingsService(SettingsStore(database), month_spend, users.forget),
        "RoutingService": RoutingService(router, routing, decisions, PastSnapshots(catalog, live.current)),
        "UsageService": UsageService(usage, recorder, _now, leaves_at),
    }
    jobs = _jobs(
        UsageUpkeep(database),
        settings.usage_retention_days,
        catalog=catalog,
        routing=routing,
        health=health_store,
        budget=budget,
    )
    gateway: tuple[Part, ...] = ()
    if settings.gateway_address is not None:
        requests = GatewayRequestStore(database, most_at_once=settings.gateway_concurrency)
        reporter = Reporter(recorder, requests, budget)
        opening = OpenRequests(requests, lasts=KEPT_OPEN - SPARE)
        patience = Patience(settings.gateway_stream_s, settings.gateway_answer_s)
        decider = Decider(
            router, credentials, budget, opening, is_usable=clusters.is_usable, patience=patience, now=_now
        )
        models, plans = UsableModels(router, is_usable=clusters.is_usable), PlansUnderWay()
        doors = ExtProc(tokens, decider, models, plans), AccessLog(reporter, plans), clusters
        handlers = [part.handler() for part in doors]
        gateway = (
            opening,
            reporter,
            *((Journal(settings.gateway_journal, reporter),) if settings.gateway_journal is not None else ()),
            GatewayServer(
                settings.gateway_address,
                settings.gateway_secret,
                handlers,
                reuse_port=settings.reuse_port,
                is_leaving=lambda: leaves_at() < math.inf,
            ),
            clusters,
        )
        jobs = {"lost chat requests": lambda: reporter.expire_lost(_now()), **jobs}  # while their money is still held
    maintenance = Maintenance(database, jobs)
    return services, (notifications, monitor, audit, decisions, recorder, *gateway, maintenance)


def _jobs(
    usage: UsageUpkeep,
    usage_days: int,
    *,
    catalog: CatalogStore,
    routing: RoutingStore,
    health: HealthStore,
    budget: BudgetStore,
) -> Mapping[str, Callable[[], Awaitable[None]]]:
    """Return the work that is done for the tables now and then."""
    kept = timedelta(days=KEPT_DAYS)
    return {
        "usage partitions": lambda: usage.create_partitions_ahead(_now()),
        "old usage records": lambda: usage.drop_old_records(_now(), usage_days),
        "old hourly sums": lambda: usage.prune_hourly(_now()),
        "old request ids": lambda: usage.prune_requests(_now()),
        "decision partitions": lambda: routing.make_partitions([_today() + timedelta(days=n) for n in range(3)]),
        "old decisions": lambda: routing.drop_partitions(_today() - kept),
        # A replica may use a superseded snapshot a moment longer.
        "old catalogue snapshots": lambda: catalog.prune_snapshots(_now() - kept - timedelta(days=1)),
        "old provider minutes": lambda: health.prune(_now()),
        "expired holds": lambda: budget.expire(_now()),
    }


def _now() -> datetime:
    return datetime.now(UTC)


def _today() -> date:
    return _now().date()
