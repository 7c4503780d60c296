"""Watches the providers: what this replica sees of them at once, what the others saw within a minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.health.machine import REST_S, Health, Outcome, ProviderMachine, Status
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.health.machine import Attempt
    from llmrouter_server.health.store import HealthStore
    from llmrouter_server.health.window import MinuteReport

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
WRITE_INTERVAL_S = 10.0
READ_INTERVAL_S = (40.0, 50.0)
"""Drawn anew each time, so that replicas spread out. With the interval of writing, a minute at most."""
WRITTEN_AT_ONCE = 20
"""Providers whose minutes are one statement."""
UNNAMED = "unknown"
"""A provider's name in metrics until the catalogue has been read."""


@dataclass(frozen=True, slots=True)
class HealthView:
    """The providers' health at one moment, as routing needs it."""

    unhealthy: frozenset[UUID] = frozenset()
    """Providers not to be routed to."""
    probe_due: frozenset[UUID] = frozenset()
    """Those of them that may be tried once now: see `HealthMonitor.take_probe`."""
    live_latencies: Mapping[UUID, int] = field(default_factory=dict)
    """By model, the median latency in milliseconds of its last 15 minutes; only models with 20 or more."""


class HealthMonitor:
    """Owns one machine for each provider that was tried, and the task that keeps them up to date.

    rest_s: how long an unhealthy provider is left alone before each probe.

    Nothing here fails for want of the database: then each replica goes by what it sees itself. What is done for every
    provider lets others have their turn after each one; so the time is asked anew for each, lest it go backward.
    """

    def __init__(
        self,
        store: HealthStore,
        catalog: Callable[[], Awaitable[Snapshot]],
        *,
        rest_s: float = REST_S,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store, self._catalog, self._now, self._sleep, self._draw = store, catalog, now, sleep, draw
        self._rest_s = rest_s
        self._replica_id = uuid.uuid4()
        self._machines: dict[UUID, ProviderMachine] = {}
        self._names: dict[UUID, str] = {}
        self._enabled: frozenset[UUID] = frozenset()
        self._catalog_ms: dict[UUID, int] = {}
        self._view = HealthView()
        self._live_latencies = self._view.live_latencies
        self._shown: dict[str, Status] = {}
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn what the others know, if the database is there, and begin to watch."""
        await self._attempt("reading", self.read)
        self._task = asyncio.create_task(self._watch(), name="provider health")

    async def stop(self) -> None:
        """Stop watching, and tell the others what they have not been told."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._attempt("writing", self.write)

    def view(self) -> HealthView:
        """Return what is known now. The same object until something changes."""
        return self._view

    def take_probe(self, provider_id: UUID) -> bool:
        """Take the one attempt that this replica gives an unhealthy provider after a rest; False when none is due."""
        machine = self._machines.get(provider_id)
        if machine is None or not machine.take_probe(self._now()):
            return False
        self._judge()
        return True

    def observe(self, attempts: Iterable[Attempt]) -> None:
        """Take note of attempts. Whoever becomes unhealthy, or is so no more, is so in the view at once."""
        now = self._now()
        of_provider: dict[UUID, list[Attempt]] = {}
        for attempt in attempts:
            of_provider.setdefault(attempt.provider_id, []).append(attempt)
        has_changed = False
        for provider_id, each in of_provider.items():
            name = self._names.get(provider_id, UNNAMED)
            outcomes = [attempt.outcome for attempt in each]
            for outcome in Outcome:
                if count := outcomes.count(outcome):
                    telemetry.counter(telemetry.ATTEMPTS, name, outcome.value).inc(count)
            has_changed |= self._machine(provider_id).observe(each, now)
        if has_changed:
            self._judge()

    def _machine(self, provider_id: UUID) -> ProviderMachine:
        machine = self._machines.get(provider_id)
        if machine is None:
            machine = self._machines[provider_id] = ProviderMachine(self._rest_s)
        return machine

    def health(self, provider_id: UUID) -> Health:
        """Return all that is known of a provider."""
        machine = self._machines.get(provider_id) or ProviderMachine(self._rest_s)
        return machine.health(self._now(), self._catalog_ms)

    async def look(self) -> None:
        """See what has changed with time alone, or since the last look."""
        latencies: dict[UUID, int] = {}
        statuses: dict[UUID, Status] = {}
        for provider_id, machine in tuple(self._machines.items()):
            for _ in machine.sort(self._now()):
                await asyncio.sleep(0)
            latencies |= machine.live_latencies(self._now())
            statuses[provider_id] = machine.status(self._now(), self._catalog_ms)
            await asyncio.sleep(0)
        self._live_latencies = MappingProxyType(latencies)
        self._judge()
        self._show(statuses)

    async def write(self) -> None:
        """Tell the others what has changed. UNAVAILABLE: it is still to be told."""
        watched = tuple(self._machines.items())
        for start in range(0, len(watched), WRITTEN_AT_ONCE):
            rows: list[tuple[UUID, MinuteReport]] = []
            for provider_id, machine in watched[start : start + WRITTEN_AT_ONCE]:
                rows += ((provider_id, report) for report in machine.unwritten(self._now()))
                await asyncio.sleep(0)
            await self._store.write(self._replica_id, rows)
            for provider_id, report in rows:
                self._machines[provider_id].written((report,))

    async def read(self) -> None:
        """Learn what the others saw, and what the catalogue says. UNAVAILABLE: what was known before stays."""
        snapshot = await self._catalog()
        self._names = {model.provider_id: model.provider_name for model in snapshot.models}
        self._enabled = frozenset(model.provider_id for model in snapshot.models if model.provider_enabled)
        self._catalog_ms = {model.model_id: model.avg_latency_ms for model in snapshot.models}
        heard = await self._store.read_peers(self._replica_id, self._now())
        for provider_id in self._machines.keys() | heard.keys():
            machine = self._machines.setdefault(provider_id, ProviderMachine(self._rest_s))
            machine.hear(heard.get(provider_id, ()), self._now())
            await asyncio.sleep(0)
        await self.look()

    def _judge(self) -> None:
        """Bring into the view who is unhealthy now."""
        now = self._now()
        view = HealthView(
            frozenset(each for each, machine in self._machines.items() if machine.is_unhealthy(now)),
            frozenset(each for each, machine in self._machines.items() if machine.probe_is_due(now)),
            self._live_latencies,
        )
        if view != self._view:
            self._view = view

    def _show(self, statuses: Mapping[UUID, Status]) -> None:
        """Bring the metrics up to date; a provider that was disabled or renamed has no status any more."""
        shown: dict[str, Status | None] = dict.fromkeys(self._shown)
        shown |= {self._names[each]: statuses.get(each, Status.UNKNOWN) for each in self._enabled}
        for name, status in shown.items():
            if status is not self._shown.get(name):
                for each in Status:
                    telemetry.PROVIDER_HEALTH.labels(name, each.name).set(int(each is status))
        self._shown = {name: status for name, status in shown.items() if status is not None}

    async def _watch(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep("judging", lambda: LOOK_INTERVAL_S, self.look))
            tasks.create_task(self._keep("writing", lambda: WRITE_INTERVAL_S, self.write))
            tasks.create_task(self._keep("reading", lambda: self._draw(*READ_INTERVAL_S), self.read))

    async def _keep(self, what: str, pause: Callable[[], float], step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._sleep(pause())
            await self._attempt(what, step)

    async def _attempt(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do it if that can be. A failure is logged once, until it succeeds again."""
        try:
            await step()
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                known = isinstance(error, errors.DomainError)
                log.warning("%s the providers' health fails; trying again", what, exc_info=None if known else error)
        else:
            self._failing.discard(what)
