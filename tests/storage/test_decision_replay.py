"""Decisions come out the same when they are made again, whatever has changed since; and tampering is found out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from decision_samples import FACTS, House, decided, keep_four, keeping
from llmrouter_server.catalog.live import LiveCatalog
from llmrouter_server.catalog.past import MOST_KEPT
from llmrouter_server.catalog.snapshot import CAPABILITIES, PowerLevel
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.log import DecisionLog
from llmrouter_server.routing.replay import Change, Replay, Replayer
from llmrouter_server.routing.router import Asked, Router
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Tokens, Weights
from llmrouter_server.routing.state import UserStates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from llmrouter_server.catalog.snapshot import Snapshot

QUALITY_ALONE = Weights(0, 0, 1)


@pytest.fixture
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    """A database of the test's own: replay looks at all decisions there are."""
    async with keeping(await migrated_database()) as house:
        yield house


async def replay(house: House, weights: Weights | None = None, changes: list[Change] | None = None) -> Replay:
    now, kept = datetime.now(UTC), [] if changes is None else changes
    replayer = Replayer(house.store, house.catalog)
    since, before = now - timedelta(hours=1), now + timedelta(seconds=1)
    return await replayer.replay(since=since, before=before, weights=weights, changed=kept.append)


# --- the same again ---


@dataclass
class Weather:
    """Health and latencies that change from one request to the next."""

    unhealthy: frozenset[UUID] = frozenset()
    probe_due: frozenset[UUID] = frozenset()
    live_latencies: Mapping[UUID, int] = field(default_factory=dict)

    def view(self) -> Weather:
        return self

    def take_probe(self, _: UUID) -> bool:
        return bool(random.getrandbits(1))

    def change(self, snapshot: Snapshot) -> None:
        providers = sorted({model.provider_id for model in snapshot.models})
        self.unhealthy = frozenset(random.sample(providers, random.randrange(len(providers) + 1)))
        self.probe_due = frozenset(each for each in self.unhealthy if random.getrandbits(1))
        models = random.sample(snapshot.models, random.randrange(len(snapshot.models)))
        self.live_latencies = {model.model_id: random.randrange(5000) for model in models}


async def change_somebody(house: House, user: UUID, providers: list[UUID]) -> None:
    """Change the user's settings, keys and spend, and the catalogue."""
    weights = random.choice(['{"cost_weight": 0.7, "latency_weight": 0.2, "quality_weight": 0.1}', "{}"])
    await house.execute(
        "insert into user_llm_settings"
        " (user_id, preferred_power_level, routing_config, monthly_budget_usd, on_budget_exceeded)"
        " values ($1, $2, $3::text::jsonb, $4, $5) on conflict (user_id) do update set"
        " routing_config = excluded.routing_config, monthly_budget_usd = excluded.monthly_budget_usd",
        *(user, random.choice(list(PowerLevel)).name, weights),
        *(random.choice([None, None, 0, 50]), random.choice(["downgrade", "downgrade", "reject"])),
    )
    await house.execute(
        "insert into user_provider_keys (id, user_id, provider_id, encrypted_api_key, key_prefix, refused_at)"
        " values ($1, $2, $3, 'x', 'sk-abc', $4) on conflict do nothing",
        *(uuid4(), user, random.choice(providers), random.choice([None, datetime.now(UTC)])),
    )
    await house.execute(
        "insert into llm_budget_ledger (user_id, month, spent_usd)"
        " values ($1, date_trunc('month', now() at time zone 'utc')::date, $2)"
        " on conflict (user_id, month) do update set spent_usd = llm_budget_ledger.spent_usd + excluded.spent_usd",
        *(user, random.choice([0, 0.0000000001, 1, 49.9])),
    )
    await house.execute(
        "update llm_models set output_cost_per_1m = output_cost_per_1m + $1, avg_latency_ms = avg_latency_ms + $2,"
        " is_enabled = random() < 0.9 where random() < 0.2",
        *(random.choice([0, 0.0137]), random.randrange(50)),
    )


async def test_none_of_many_decisions_differs_though_prices_health_latencies_budgets_and_keys_change(
    house: House,
) -> None:
    random.seed(2026)
    weather, log = Weather(), DecisionLog(house.store)
    live = LiveCatalog(house.catalog, lambda: False)
    states = UserStates(house.store.user_state, is_told=lambda: False, most=9)
    router = Router(live, states, weather, log, platform_keys=house.platform_keys())
    users, numbers, made, refused = [uuid4() for _ in range(6)], set(), 0, 0
    await log.start()
    for _ in range(40):
        snapshot = await live.current()
        await change_somebody(house, random.choice(users), sorted({each.provider_id for each in snapshot.models}))
        for _ in range(8):
            weather.change(snapshot)
            asked = Asked(
                user_id=random.choice(users),
                power_level=random.choice([None, *PowerLevel]),
                capabilities=frozenset(random.sample(sorted(CAPABILITIES), random.choice([0, 0, 0, 1, 2]))),
                context_tokens=random.choice([0, 0, 0, 30_000, 100_000]),
                fallback_count=random.randrange(1, 6),
                tokens=random.choice([ONE_MILLION_EACH, Tokens(random.randrange(9999), random.randrange(9999))]),
                task_type="chat",
                model_name=random.choice([None, None, random.choice(snapshot.models).model_name, "no model"]),
                allow_fallbacks=random.random() < 0.7,
                needs_credential=random.random() < 0.3,
                free_only=random.random() < 0.1,
            )
            try:
                routed = await router.route(asked)
            except DomainError:
                refused += 1
            else:
                made += 1
                numbers.add(routed.record.snapshot_number)
    await log.stop()
    done = await replay(house)
    assert (done.replayed, done.differing, done.without_snapshot) == (made, [], 0)
    assert (made + refused, made > 60, len(numbers) > MOST_KEPT) == (320, True, True)


async def test_only_the_decisions_of_the_period_are_made_again(house: House) -> None:
    snapshot, now = await house.catalog.load_snapshot(), datetime.now(UTC).replace(microsecond=0)
    moments = [now - timedelta(minutes=each) for each in (30, 20, 10)]
    records = [decided(snapshot, at=at) for at in moments for _ in range(3)]
    await house.keep(*records)
    replayer = Replayer(house.store, house.catalog)
    for since, before, expected in (
        (moments[0], now, 9),
        (moments[1], now, 6),
        (moments[0], moments[1], 3),
        (moments[0], moments[1] + timedelta(milliseconds=1), 6),
        (now, now, 0),
        (datetime.min.replace(tzinfo=UTC), now, 9),
    ):
        assert (await replayer.replay(since=since, before=before)).replayed == expected


# --- what should not be ---

TAMPERING = {
    "a score by a billionth": (
        "jsonb_set(outcome, '{choices,0,1}', to_jsonb((outcome#>>'{choices,0,1}')::float8 + 1e-9))"
    ),
    "the order": "jsonb_set(outcome, '{choices}', jsonb_build_array(outcome#>'{choices,1}', outcome#>'{choices,0}'))",
    "a fallback less": "outcome #- '{choices,-1}'",
    "no choice at all": "jsonb_set(outcome, '{choices}', '[]')",
    "degraded": "jsonb_set(outcome, '{degraded}', 'true')",
    "no list": "jsonb_set(outcome, '{choices}', '7')",
    "no model": "jsonb_set(outcome, '{choices,0,0}', '\"me\"')",
    "nothing left": "'{}'",
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_a_tampered_outcome_is_reported_and_no_other(house: House, what: str) -> None:
    snapshot = await house.catalog.load_snapshot()
    good, tampered, later = (decided(snapshot) for _ in range(3))
    await house.keep(good, tampered, later)
    await house.execute(f"update llm_decisions set outcome = {TAMPERING[what]} where id = $1", tampered[0].id)
    for weights in (None, QUALITY_ALONE):
        done = await replay(house, weights)
        assert (done.replayed, done.differing) == (3, [tampered[0].id])


@pytest.mark.parametrize(
    "changed",
    ['{"power_level": "HUGE"}', '{"weights": [0, 0, 1]}', '{"weights": ["a", 0, 1]}', '{"spent_usd": "much"}', None],
)
async def test_so_are_facts_that_do_not_lead_to_it(house: House, changed: str | None) -> None:
    snapshot = await house.catalog.load_snapshot()
    good, tampered = decided(snapshot), decided(snapshot)
    await house.keep(good, tampered)
    value = "facts - 'weights'" if changed is None else "facts || $2::text::jsonb"
    values = () if changed is None else (changed,)
    await house.execute(f"update llm_decisions set facts = {value} where id = $1", tampered[0].id, *values)
    assert (await replay(house)).differing == [tampered[0].id]


async def test_a_decision_whose_catalogue_is_gone_is_counted_apart(house: House) -> None:
    before = decided(await house.catalog.load_snapshot())
    await house.execute("update llm_models set input_cost_per_1m = input_cost_per_1m + 1")
    after = decided(await house.catalog.load_snapshot())
    await house.keep(before, after)
    await house.catalog.prune_snapshots(datetime.now(UTC) + timedelta(seconds=1))
    done = await replay(house, QUALITY_ALONE)
    assert (done.replayed, done.differing, done.without_snapshot) == (1, [], 1)


# --- with other weights ---


async def test_other_weights_tell_which_choices_they_would_change_and_what_that_sums_to(house: House) -> None:
    await keep_four(house)  # see there how each choice comes about
    changes: list[Change] = []
    done = await replay(house, QUALITY_ALONE, changes)
    assert [(each.before.model.model_name, each.after.model.model_name) for each in changes] == [
        ("Qwen/Qwen2.5-32B-Instruct", "meta-llama/llama-3.1-405b"),
        ("qwen/qwen-2.5-72b-instruct", "deepseek/deepseek-chat"),
        ("google/gemini-2.0-flash-thinking-exp", "deepseek/deepseek-r1"),
    ]
    assert (done.replayed, done.differing, done.changed) == (4, [], 3)
    assert done.cost_usd == pytest.approx(0.0003 + (1.37 - 0.75) + 2.74)
    assert done.latency_ms == 200 + 50 + 2000
    assert done.quality_rating == pytest.approx(1.5 + 0.2 + 0.3)


async def test_the_same_weights_change_nothing(house: House) -> None:
    await keep_four(house)
    done = await replay(house, FACTS.weights)
    assert (done.replayed, done.changed, done.cost_usd, done.latency_ms, done.quality_rating) == (4, 0, 0, 0, 0)
