"""A monitor with a store and a clock that the tests hold in their hands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import prometheus_client

from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import CatalogModel, PowerLevel, Snapshot
from llmrouter_server.health.machine import Attempt, Outcome, Status
from llmrouter_server.health.monitor import HealthMonitor, HealthView
from unit.health_provider import START

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.health.window import MinuteReport

PROVIDER, MODEL = uuid4(), uuid4()


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = START
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, waking))
        await waking

    async def passes(self, seconds: float) -> None:
        """Let time pass, and wake everybody when it is due."""
        await self._everybody_sleeps()
        end = self.now + seconds
        while due := [each for each in self.sleepers if each[0] <= end]:
            first = min(due, key=lambda each: each[0])
            self.sleepers.remove(first)
            self.now = max(self.now, first[0])
            if not first[1].done():
                first[1].set_result(None)
            await self._everybody_sleeps()
        self.now = end

    async def _everybody_sleeps(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


class Store:
    """What the replicas would tell each other."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.is_away = clock, False
        self.error: Exception = errors.unavailable()
        self.written: list[list[tuple[UUID, MinuteReport]]] = []
        self.peers: dict[UUID, list[MinuteReport]] = {}
        self.read_at: list[float] = []

    async def write(self, _replica_id: UUID, reports: Sequence[tuple[UUID, MinuteReport]]) -> None:
        if self.is_away:
            raise self.error
        if reports:
            self.written.append(list(reports))

    async def read_peers(self, _replica_id: UUID, _now: float) -> dict[UUID, list[MinuteReport]]:
        self.read_at.append(self.clock.now)
        if self.is_away:
            raise self.error
        return self.peers


class World:
    def __init__(self, name: str) -> None:
        self.clock, self.name, self.is_enabled = Clock(), name, True
        self.store = Store(self.clock)
        self.monitor = HealthMonitor(
            self.store, self.catalog, now=lambda: self.clock.now, sleep=self.clock.sleep, draw=lambda low, _high: low
        )

    async def catalog(self) -> Snapshot:
        model = CatalogModel(
            model_id=MODEL,
            provider_id=PROVIDER,
            model_name="m",
            display_name="m",
            provider_name=self.name,
            api_endpoint="",
            power_level=PowerLevel.ECO,
            input_cost_per_1m=0,
            output_cost_per_1m=0,
            avg_latency_ms=100,
            quality_rating=5,
            max_context_tokens=1,
            capabilities=frozenset(),
            priority=50,
            requires_byok=False,
            model_enabled=True,
            provider_enabled=self.is_enabled,
        )
        return Snapshot(1, (model,))

    def tries(self, *outcomes: Outcome, latency_ms: int | None = None) -> None:
        self.monitor.observe(Attempt(self.clock.now, PROVIDER, MODEL, each, latency_ms) for each in outcomes)

    @property
    def view(self) -> HealthView:
        return self.monitor.view()

    def status_shown(self, name: str | None = None) -> list[str]:
        """Return the statuses whose metric is 1."""
        return [
            each.name for each in Status if sample("provider_health", provider=name or self.name, status=each.name) == 1
        ]


def sample(name: str, **labels: str) -> float | None:
    return prometheus_client.REGISTRY.get_sample_value(f"llmrouter_{name}", labels)
