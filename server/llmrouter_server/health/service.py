"""The door of the providers' health: HealthService."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from llmrouter.v2 import health_pb2, health_service_pb2, health_service_pb2_grpc
from llmrouter_server import errors
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.messages import timestamp

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from llmrouter_server.catalog.provider import Provider
    from llmrouter_server.catalog.store import CatalogStore
    from llmrouter_server.health.machine import Health
    from llmrouter_server.health.monitor import HealthMonitor
    from llmrouter_server.runtime.interceptor import Context


class HealthService(health_service_pb2_grpc.HealthServiceServicer):
    """How the enabled providers do, for everyone."""

    def __init__(self, monitor: HealthMonitor, catalog: CatalogStore) -> None:
        self._monitor, self._catalog = monitor, catalog

    async def ListProviderHealth(
        self, request: health_service_pb2.ListProviderHealthRequest, _context: Context
    ) -> health_service_pb2.ListProviderHealthResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        after = cast("tuple[int, str] | None", fields.page_token(request.page_token, int, str))
        fields.done()
        found = await self._catalog.list_providers(enabled_only=True, after=after, limit=size + 1)
        page = found[:size]
        response = health_service_pb2.ListProviderHealthResponse(
            next_page_token=next_page_token(page[-1].priority, page[-1].name) if len(found) > size else ""
        )
        for provider in page:
            response.providers.append(_health(provider, self._monitor.health(provider.id)))
            await asyncio.sleep(0)  # the figures of many latencies take a while; others may go in between
        return response

    async def GetProviderHealth(
        self, request: health_service_pb2.GetProviderHealthRequest, _context: Context
    ) -> health_pb2.ProviderHealth:
        fields = Fields()
        provider_id = fields.uuid("provider_id", request.provider_id)
        fields.done()
        provider = await self._catalog.get_provider(provider_id)
        if not provider.is_enabled:
            raise errors.not_found("provider")
        return _health(provider, self._monitor.health(provider.id))


def _health(provider: Provider, health: Health) -> health_pb2.ProviderHealth:
    return health_pb2.ProviderHealth(
        provider_id=str(provider.id),
        provider_name=provider.name,
        status=health_pb2.ProviderStatus.Value(f"PROVIDER_STATUS_{health.status.name}"),
        attempts=health.attempts,
        success_rate=health.success_rate,
        p50_latency_ms=health.p50_latency_ms,
        p95_latency_ms=health.p95_latency_ms,
        last_success_at=_timestamp(health.last_success_at),
        last_failure_at=_timestamp(health.last_failure_at),
        consecutive_failures=health.consecutive_failures,
        model_count=provider.model_count,
        next_probe_at=_timestamp(health.next_probe_at),
    )


def _timestamp(at: float | None) -> Timestamp | None:
    return timestamp(datetime.fromtimestamp(at, UTC)) if at is not None else None
