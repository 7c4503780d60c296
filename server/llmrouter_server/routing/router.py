"""Makes a decision from what is known now: the catalogue, the user, the providers' health and the budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import uuid_utils.compat as uuid_utils

from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.record import DecisionRecord, Facts, choices_of
from llmrouter_server.routing.scoring import PRESETS, Tokens, Weights
from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.catalog.live import LiveCatalog
    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.routing.log import DecisionLog
    from llmrouter_server.routing.selection import Decision
    from llmrouter_server.routing.state import UserState, UserStates
    from llmrouter_server.settings.preferences import RoutingConfig


class Health(Protocol):
    """What routing asks of the providers' health. None of it waits."""

    def view(self) -> HealthView:
        """Return what is known now."""

    def take_probe(self, provider_id: UUID) -> bool:
        """Take the one attempt that an unhealthy provider is given now; False when it is taken."""


class HealthView(Protocol):
    """The providers' health at one moment."""

    @property
    def unhealthy(self) -> AbstractSet[UUID]:
        """Providers not to be routed to."""

    @property
    def probe_due(self) -> AbstractSet[UUID]:
        """Those of them that may be tried once now."""

    @property
    def live_latencies(self) -> Mapping[UUID, int]:
        """Median latency in milliseconds, by model, of those that were tried often enough."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A routing request."""

    user_id: UUID
    power_level: PowerLevel | None
    capabilities: frozenset[str]
    context_tokens: int
    fallback_count: int
    tokens: Tokens
    task_type: str


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision with its record."""

    decision: Decision
    record: DecisionRecord


class Router:
    """Routes. Makes no query while everything it needs is in memory."""

    def __init__(
        self,
        catalog: LiveCatalog,
        users: UserStates,
        health: Health,
        log: DecisionLog,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalog, self._users, self._health, self._log, self._now = catalog, users, health, log, now

    async def route(self, asked: Asked) -> Routed:
        """Decide, and have the decision kept. NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED."""
        user = await self._users.get(asked.user_id)
        snapshot = await self._catalog.current()
        view = self._health.view()
        facts, decision = self._decide(snapshot, self._facts(asked, user, view), view)
        _count(decision, facts)
        if not decision.ranked:
            raise errors.no_eligible_model(Counter(reason.value for _, reason in decision.excluded))
        record = DecisionRecord(
            id=uuid_utils.uuid7(),
            user_id=asked.user_id,
            snapshot_number=snapshot.number,
            facts=facts,
            choices=choices_of(decision, asked.fallback_count),
            degraded=decision.degraded,
        )
        self._log.add(record, decision.ranked)
        return Routed(decision, record)

    def _facts(self, asked: Asked, user: UserState, view: HealthView) -> Facts:
        now, preferences = self._now(), user.preferences
        level = asked.power_level or preferences.preferred_power_level
        budget = preferences.monthly_budget_usd
        if user.is_over_budget:
            if preferences.on_budget_exceeded == "reject" and budget is not None:
                raise errors.budget_exceeded(budget, user.spent_usd, _seconds_to_next_month(now))
            level = PowerLevel.ECO
        need = Need(
            power_level=level,
            keyed_providers=user.keyed_providers,
            failing_keys=user.failing_keys(now),
            free_only=user.is_over_budget,
            capabilities=asked.capabilities,
            context_tokens=asked.context_tokens,
            unhealthy_providers=view.unhealthy,
        )
        return Facts(
            need=need,
            weights=_weights(preferences.routing_config),
            tokens=asked.tokens,
            strategy=preferences.routing_config.strategy,
            fallback_count=asked.fallback_count,
            task_type=asked.task_type,
            live_latencies=view.live_latencies,
            budget_usd=budget,
            spent_usd=user.spent_usd,
        )

    def _decide(self, snapshot: Snapshot, facts: Facts, view: HealthView) -> tuple[Facts, Decision]:
        """Decide. An unhealthy provider whose probe is due may be a fallback, and once the primary: the probe."""
        decision = facts.decide(snapshot.models)
        due = set(view.probe_due)
        while due and not decision.degraded:
            probing = replace(facts, need=replace(facts.need, unhealthy_providers=view.unhealthy - due))
            tried = probing.decide(snapshot.models)
            if not tried.ranked:
                break
            primary = tried.ranked[0].model.provider_id
            if primary not in due or self._health.take_probe(primary):
                return probing, tried
            due.remove(primary)
        return facts, decision


def _weights(config: RoutingConfig) -> Weights:
    own = Weights(config.cost_weight, config.latency_weight, config.quality_weight)
    return PRESETS.get(config.strategy, own)


def _seconds_to_next_month(now: datetime) -> int:
    next_month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return max(1, int((next_month - now).total_seconds()))


def _count(decision: Decision, facts: Facts) -> None:
    for reason, number in Counter(reason for _, reason in decision.excluded).items():
        telemetry.counter(telemetry.EXCLUSIONS, reason.value).inc(number)
    if decision.ranked:
        model = decision.ranked[0].model
        telemetry.counter(telemetry.DECISIONS, model.provider_name, model.model_name, model.power_level.name).inc()
    if decision.degraded:
        telemetry.counter(telemetry.DECISIONS_FLAGGED, "degraded").inc()
    if facts.need.free_only:
        telemetry.counter(telemetry.DECISIONS_FLAGGED, "downgraded").inc()
