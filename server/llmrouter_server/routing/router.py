"""Makes a decision from what is known now: the catalogue, the user, the providers' health and the budget."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import uuid_utils
from asyncpg.pgproto import pgproto

from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import PowerLevel, one_of_each_provider
from llmrouter_server.routing.decisions import MOST_VERDICTS, Decisions
from llmrouter_server.routing.eligibility import Need, select_eligible
from llmrouter_server.routing.payment import find_keys, find_unpayable
from llmrouter_server.routing.record import AppliedRule, DecisionRecord, Facts, choices_of
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, PRESETS, Tokens, Weights
from llmrouter_server.routing.state import NO_KEYS, NOBODY
from llmrouter_server.rules.condition import Situation
from llmrouter_server.rules.matching import ActiveRules, prepare
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.byok.live_keys import KeptKey, PlatformKeys
    from llmrouter_server.byok.store import SealedKey
    from llmrouter_server.catalog.live import LiveCatalog
    from llmrouter_server.catalog.snapshot import CatalogModel, CatalogRule, Snapshot
    from llmrouter_server.routing.log import DecisionLog
    from llmrouter_server.routing.selection import Decision, Selection
    from llmrouter_server.routing.state import UserState, UserStates
    from llmrouter_server.settings.preferences import Preferences, RoutingConfig


BALANCED = "balanced"
MINUTE = timedelta(minutes=1)


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
    model_name: str | None = None
    """The provider's own identifier of the model that is wanted; then only models of this name are."""
    allow_fallbacks: bool = False
    """Whether models of other names may come after it."""
    needs_credential: bool = False
    """Whether a provider must be left out when there is no key to pay it with."""
    free_only: bool = False
    """Decide as if the month's budget were used up: what is left of it does not cover the request."""


@dataclass(frozen=True, slots=True)
class Made:
    """A decision, with all that follows from it and stays the same while it holds."""

    asked: Asked
    user: UserState
    snapshot: Snapshot
    view: HealthView
    facts: Facts
    decision: Decision
    counts: telemetry.Increments
    ends_at: datetime | None
    """When the minute is over, if a rule's condition looks at the time."""

    def holds(self, asked: Asked, user: UserState, snapshot: Snapshot, view: HealthView) -> bool:
        """Tell whether it was made from these very objects: what changes is another object from then on."""
        return self.asked is asked and self.user is user and self.snapshot is snapshot and self.view is view


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision with its record, and what its providers would be paid with when that was asked for."""

    decision: Decision
    record: DecisionRecord
    _keys: Mapping[UUID, SealedKey] | None = field(default=None, repr=False)

    def key_for(self, provider_id: UUID) -> SealedKey | None:
        """Return the key for a ranked model's provider, the user's own first; None: it takes requests without one."""
        return self._keys.get(provider_id) if self._keys else None


class Router:
    """Routes. Makes no query while everything it needs is in memory."""

    def __init__(
        self,
        catalog: LiveCatalog,
        users: UserStates,
        health: Health,
        log: DecisionLog,
        *,
        platform_keys: PlatformKeys,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalog, self._users, self._health, self._log, self._now = catalog, users, health, log, now
        self._platform_keys, self._decisions = platform_keys, Decisions()
        self._made: dict[int, Made] = {}
        """By the id of what was asked; who asks the same again hands over the same object."""
        self._snapshot: Snapshot | None = None
        self._rules = ActiveRules(())
        """Those of the snapshot."""

    async def route(self, asked: Asked) -> Routed:
        """Decide, and have the decision kept. NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED."""
        user = await self._users.get(asked.user_id)
        snapshot = await self._catalog.current()
        if snapshot is not self._snapshot:
            await prepare(snapshot.rules)
        platform = await self._platform_keys.current() if asked.needs_credential else NO_KEYS
        view = self._health.view()
        made = self._made.get(id(asked))
        if (
            made is None
            or not made.holds(asked, user, snapshot, view)
            or (made.ends_at is not None and made.ends_at <= self._now())
        ):
            made = self._make(asked, user, snapshot, view, platform)
        decision = made.decision
        telemetry.count(made.counts)
        if decision.primary is None:
            raise errors.no_eligible_model(Counter(reason.value for _, reason in decision.excluded))
        record = DecisionRecord(
            id=pgproto.UUID(uuid_utils.uuid7().bytes),  # the driver's own, which is six times as fast to write
            user_id=asked.user_id,
            snapshot_number=snapshot.number,
            facts=made.facts,
            choices=choices_of(decision, asked.fallback_count),
            degraded=decision.degraded,
        )
        self._log.add(record, decision)
        if not asked.needs_credential:
            return Routed(decision, record)
        providers = decision.selection.once(
            "providers", lambda: one_of_each_provider(decision.selection.candidates.models)
        )
        return Routed(decision, record, find_keys(providers, asked.user_id, user.sealed_keys, platform))

    async def downgrades(self, user_id: UUID) -> bool:
        """Tell whether the user would rather have free models than an error when the month's budget is used up."""
        return (await self._users.get(user_id)).preferences.on_budget_exceeded == "downgrade"

    async def usable_models(self, user_id: UUID) -> list[CatalogModel]:
        """Return the models of every power level that could be had for the user, with a key to pay them.

        The providers' health is left out: it comes and goes.
        """
        user = await self._users.get(user_id)
        if user.is_over_budget and user.preferences.on_budget_exceeded == "reject":
            return []
        snapshot = await self._catalog.current()
        failing = user.failing_keys(self._now())
        platform = await self._platform_keys.current()
        need = Need(
            power_level=PowerLevel.ECO,
            keyed_providers=user.keyed_providers,
            failing_keys=failing,
            free_only=user.is_over_budget,
            without_credential=find_unpayable(snapshot.providers, user.sealed_keys, platform, failing),
        )
        usable: list[CatalogModel] = []
        async for level in in_turns(PowerLevel, 1):
            models = [model for model in snapshot.models if model.power_level is level]
            usable += select_eligible(models, replace(need, power_level=level)).candidates
        return usable

    def _make(
        self, asked: Asked, user: UserState, snapshot: Snapshot, view: HealthView, platform: Mapping[UUID, KeptKey]
    ) -> Made:
        """Decide. What may be asked again, and time alone does not change before the minute is over, is kept."""
        if snapshot is not self._snapshot:
            self._snapshot, self._rules = snapshot, ActiveRules(snapshot.rules)
            self._made.clear()
        elif (len(self._made) + 1) * len(snapshot.models) > MOST_VERDICTS:
            self._made.clear()
        now, rule, ends_at = self._now(), None, None
        if self._rules:
            minute = now.replace(second=0, microsecond=0)
            rule = self._rules.first_match(_situation(asked, user.preferences, minute))
            ends_at = minute + MINUTE if self._rules.use_now else None
        facts = self._facts(asked, user, view, snapshot, platform, rule=rule, now=now)
        facts, decision = self._decide(snapshot, facts, view)
        made = Made(asked, user, snapshot, view, facts, decision, _counts(decision, facts), ends_at)
        if not (asked.needs_credential or user.refused_at or view.probe_due):
            self._made[id(asked)] = made
        return made

    @staticmethod
    def _facts(
        asked: Asked,
        user: UserState,
        view: HealthView,
        snapshot: Snapshot,
        platform: Mapping[UUID, KeptKey],
        *,
        rule: CatalogRule | None,
        now: datetime,
    ) -> Facts:
        preferences = user.preferences
        strategy, weights = _weighed(rule, preferences.routing_config)
        named = snapshot.levels.get(asked.model_name, ()) if asked.model_name is not None else ()
        level = asked.power_level or min(named, key=_by_value, default=preferences.preferred_power_level)
        if rule is not None and rule.power_level is not None:
            level = rule.power_level
        budget, failing = preferences.monthly_budget_usd, user.failing_keys(now)
        is_downgraded = asked.free_only or user.is_over_budget
        if is_downgraded:
            if preferences.on_budget_exceeded == "reject" and budget is not None:
                raise errors.budget_exceeded(budget, user.spent_usd, _seconds_to_next_month(now))
            level = PowerLevel.ECO
        need = Need(
            power_level=level,
            keyed_providers=user.keyed_providers,
            failing_keys=failing,
            free_only=is_downgraded,
            capabilities=asked.capabilities,
            context_tokens=asked.context_tokens,
            unhealthy_providers=frozenset(view.unhealthy),
            model_name=asked.model_name,
            allow_fallbacks=asked.allow_fallbacks and bool(named),  # nothing stands in for what is not there
            without_credential=(
                find_unpayable(snapshot.providers, user.sealed_keys, platform, failing)
                if asked.needs_credential
                else NOBODY
            ),
            rule_providers=(rule.provider_ids or None) if rule is not None else None,
        )
        return Facts(
            need=need,
            weights=weights,
            tokens=asked.tokens,
            strategy=strategy,
            fallback_count=asked.fallback_count,
            task_type=asked.task_type,
            live_latencies=view.live_latencies,
            budget_usd=budget,
            spent_usd=user.spent_usd,
            rule=AppliedRule(rule.rule_id, rule.rule_name) if rule is not None else None,
        )

    def _decide(self, snapshot: Snapshot, facts: Facts, view: HealthView) -> tuple[Facts, Decision]:
        """Decide. An unhealthy provider whose probe is due may be a fallback, and once the primary: the probe."""
        decision = self._decisions.decide(snapshot, facts)
        due = set(view.probe_due)
        while due and not decision.degraded:
            probing = replace(facts, need=replace(facts.need, unhealthy_providers=facts.need.unhealthy_providers - due))
            tried = self._decisions.decide(snapshot, probing)
            if tried.primary is None:
                break
            primary = tried.primary.model.provider_id
            if primary not in due or self._health.take_probe(primary):
                return probing, tried
            due.remove(primary)
        return facts, decision


def _by_value(level: PowerLevel) -> int:
    return level.value


@functools.lru_cache(maxsize=1024)
def _weights(config: RoutingConfig) -> Weights:
    own = Weights(config.cost_weight, config.latency_weight, config.quality_weight)
    return PRESETS.get(config.strategy, own)


def _weighed(rule: CatalogRule | None, config: RoutingConfig) -> tuple[str, Weights]:
    """Return the strategy and the weights: the rule's, if it has any, else those of the user's settings."""
    if rule is not None and rule.weights is not None:
        return BALANCED, Weights(*rule.weights)
    if rule is not None and rule.strategy is not None:
        return rule.strategy, PRESETS.get(rule.strategy, Weights())
    return config.strategy, _weights(config)


def _situation(asked: Asked, preferences: Preferences, minute: datetime) -> Situation:
    tokens = Tokens() if asked.tokens is ONE_MILLION_EACH else asked.tokens  # which stands for no estimate
    return Situation(
        task_type=asked.task_type,
        power_level=(asked.power_level or preferences.preferred_power_level).name,
        model=asked.model_name or "",
        required_capabilities=sorted(asked.capabilities),
        min_context_tokens=asked.context_tokens,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        user_id=str(asked.user_id),
        now=minute,
    )


def _seconds_to_next_month(now: datetime) -> int:
    next_month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return max(1, int((next_month - now).total_seconds()))


def _counts(decision: Decision, facts: Facts) -> telemetry.Increments:
    counted = [*decision.selection.once("exclusions", lambda: _exclusions(decision.selection))]
    if decision.primary is not None:
        model = decision.primary.model
        chosen = telemetry.counter(telemetry.DECISIONS, model.provider_name, model.model_name, model.power_level.name)
        counted.append((chosen.child, 1))
    if facts.rule is not None:
        counted.append((telemetry.RULES.labels(facts.rule.name, "matched"), 1))
    if decision.degraded:
        counted.append((telemetry.DECISIONS_FLAGGED.labels("degraded"), 1))
    if facts.need.free_only:
        counted.append((telemetry.DECISIONS_FLAGGED.labels("downgraded"), 1))
    return tuple(counted)


def _exclusions(selection: Selection) -> telemetry.Increments:
    numbers = Counter(reason for _, reason in selection.excluded)
    return tuple((telemetry.EXCLUSIONS.labels(reason.value), number) for reason, number in numbers.items())
