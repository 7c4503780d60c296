"""All that a router asks, made up: each test changes what it is about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from llmrouter_server.catalog.snapshot import PowerLevel, Snapshot
from llmrouter_server.routing.router import Asked, Routed, Router
from llmrouter_server.routing.scoring import ONE_MILLION_EACH
from llmrouter_server.routing.state import UserState
from llmrouter_server.settings.preferences import Preferences
from unit.seed_catalog import MODELS, provider_id

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from llmrouter_server.byok.live_keys import KeptKey
    from llmrouter_server.catalog.snapshot import CatalogModel, CatalogRule
    from llmrouter_server.routing.record import DecisionRecord
    from llmrouter_server.routing.selection import Decision

USER = UUID(int=1)
NOW = datetime(2026, 3, 31, 23, 0, tzinfo=UTC)
NEW_USER = UserState(month=NOW.date().replace(day=1))
LOCAL, GROQ, OPENROUTER = (provider_id(name) for name in ("Local vLLM", "Groq", "OpenRouter"))


@dataclass
class View:
    unhealthy: AbstractSet[UUID] = frozenset()
    probe_due: AbstractSet[UUID] = frozenset()
    live_latencies: dict[UUID, int] = field(default_factory=dict)


@dataclass
class Platform:
    """The operator's keys."""

    keys: dict[UUID, KeptKey] = field(default_factory=dict)
    reads: int = 0

    async def current(self) -> dict[UUID, KeptKey]:
        self.reads += 1
        return self.keys


@dataclass
class World:
    """All that a router asks; each test changes what it is about."""

    user: UserState = NEW_USER
    health: View = field(default_factory=View)
    probes: list[UUID] = field(default_factory=list)
    probes_left: int = 1
    kept: list[DecisionRecord] = field(default_factory=list)
    platform: Platform = field(default_factory=Platform)
    models: list[CatalogModel] = field(default_factory=lambda: list(MODELS))
    snapshot: Snapshot | None = None
    now: datetime = NOW
    rules: list[CatalogRule] = field(default_factory=list)

    async def get(self, _user_id: UUID) -> UserState:
        return self.user

    async def current(self) -> Snapshot:
        held = tuple(self.models), tuple(self.rules)
        if self.snapshot is None or (self.snapshot.models, self.snapshot.rules) != held:
            self.snapshot = Snapshot(7, *held)
        return self.snapshot

    def view(self) -> View:
        return self.health

    def take_probe(self, provider: UUID) -> bool:
        self.probes.append(provider)
        self.probes_left -= 1
        return self.probes_left >= 0

    def add(self, record: DecisionRecord, _decision: object) -> None:
        self.kept.append(record)

    def router(self) -> Router:
        me, keys = cast("Any", self), cast("Any", self.platform)
        return Router(me, me, me, me, platform_keys=keys, now=lambda: self.now)

    async def route(self, level: PowerLevel | None = PowerLevel.ECO, **changes: Any) -> Routed:
        return await self.router().route(asked(level, **changes))


def asked(level: PowerLevel | None = PowerLevel.ECO, **changes: Any) -> Asked:
    return replace(Asked(USER, level, frozenset(), 0, 3, ONE_MILLION_EACH, "chat"), **changes)


def fates(decision: Decision) -> tuple[object, ...]:
    """Return all that a decision says, to be compared."""
    return decision.ranked, dict(decision.excluded), decision.degraded


def names(routed: Routed) -> list[str]:
    return [scored.model.model_name for scored in routed.decision.ranked]


def over_budget(on_exceeded: str) -> UserState:
    preferences = Preferences(monthly_budget_usd=Decimal(50), on_budget_exceeded=on_exceeded)
    return UserState(month=NOW.date().replace(day=1), preferences=preferences, spent_usd=Decimal("50.12"))
