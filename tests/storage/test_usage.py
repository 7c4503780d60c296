from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg
import pytest

from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.errors import DomainError
from llmrouter_server.usage.record import Failure
from usage_samples import NOW, model_ids, quiet_recorder, report, usage_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.recorder import UsageRecorder
    from llmrouter_server.usage.store import UsageStore


@pytest.fixture
def store(database: Database) -> UsageStore:
    return usage_store(database)


@pytest.fixture
async def recorder(store: UsageStore) -> AsyncIterator[UsageRecorder]:
    recorder = quiet_recorder(store)
    await recorder.start()
    yield recorder
    await recorder.stop()


@pytest.fixture(scope="session")
async def models(database: Database) -> dict[str, uuid.UUID]:
    return await model_ids(database)


async def stored(database: Database, user: uuid.UUID) -> list[tuple]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select cost_usd, power_level, payer, created_at, tableoid::regclass::text from llm_usage_logs"
            " where user_id = $1 order by created_at, id",
            user,
        )
    return [tuple(row) for row in rows]


async def test_cost_is_priced_when_recorded_and_a_later_price_changes_no_history(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user, model = uuid.uuid4(), models["gpt-4o"]
    [receipt] = await store.record([report(user, model)])
    # 1000 tokens at 2.50 and 100 at 10.00 US dollars per million: 0.0025 + 0.001
    assert receipt.cost_usd == Decimal("0.0035")
    async with database.connection() as connection:
        await connection.execute("update llm_models set input_cost_per_1m = 5 where id = $1", model)
        try:
            [later] = await store.record([report(user, model)])
        finally:
            await connection.execute("update llm_models set input_cost_per_1m = 2.5 where id = $1", model)
    assert later.cost_usd == Decimal("0.006")
    assert [row[:3] for row in await stored(database, user)] == [
        (Decimal("0.0035"), "BALANCED", "PLATFORM"),
        (Decimal("0.006"), "BALANCED", "PLATFORM"),
    ]


async def test_a_model_with_recorded_usage_cannot_be_erased(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    await store.record([report(uuid.uuid4(), models["gpt-4o"])])
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RestrictViolationError, match="llm_usage_daily"):
            await connection.execute("delete from llm_models where id = $1", models["gpt-4o"])


async def test_each_month_has_its_partition(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user = uuid.uuid4()
    moments = [NOW, NOW + timedelta(seconds=1), datetime(2027, 1, 1, tzinfo=UTC)]
    await store.record([report(user, models["gpt-4o"], occurred_at=moment) for moment in moments])
    assert [row[4] for row in await stored(database, user)] == [
        "llm_usage_logs_2026_03",
        "llm_usage_logs_2026_04",
        "llm_usage_logs_2027_01",
    ]
    days = [date(2026, 3, 31), date(2026, 4, 1), date(2027, 1, 1)]
    for day in days:
        assert [row.requests for row in await store.sums(user, day, day)] == [1]
    assert [await store.spend(user, date(*month, 1)) for month in ((2026, 3), (2026, 4), (2027, 1), (2026, 2))] == [
        Decimal("0.0035"),
        Decimal("0.0035"),
        Decimal("0.0035"),
        0,
    ]


async def test_the_same_request_id_counts_once_in_any_interleaving(
    recorder: UsageRecorder, store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user, other = uuid.uuid4(), uuid.uuid4()
    ids = [f"request-{number}" for number in range(40)]
    reports = [report(user, models["gpt-4o-mini"], request_id=name) for name in ids * 5]
    reports.append(report(other, models["gpt-4o-mini"], request_id=ids[0]))  # another user's id is their own
    random.Random(7).shuffle(reports)
    second = quiet_recorder(store)  # as on another replica
    await second.start()
    receipts = await asyncio.gather(
        *((recorder if number % 2 else second).record(each) for number, each in enumerate(reports))
    )
    await second.stop()
    answers: dict[tuple[uuid.UUID, str], set[uuid.UUID]] = {}
    for each, receipt in zip(reports, receipts, strict=True):
        answers.setdefault(each.key, set()).add(receipt.usage_id)
    assert all(len(usage_ids) == 1 for usage_ids in answers.values())
    assert sum(not receipt.is_duplicate for receipt in receipts) == len(ids) + 1
    assert len(await stored(database, user)) == len(ids)
    [total] = await store.sums(user, NOW.date(), NOW.date())
    assert total.requests == len(ids)


async def test_failed_attempts_count_apart_and_their_latency_does_not_count(
    store: UsageStore, models: dict[str, uuid.UUID]
) -> None:
    user, model = uuid.uuid4(), models["gpt-4o"]
    await store.record(
        [
            report(user, model, latency_ms=100),
            report(user, model, latency_ms=300),
            report(user, model, latency_ms=None),
            report(user, model, latency_ms=9999, succeeded=False, error_message="503"),
        ]
    )
    [total] = await store.sums(user, NOW.date(), NOW.date())
    assert (total.requests, total.failed_requests) == (3, 1)
    assert (total.latency_ms_sum, total.latency_count) == (400, 2)


async def test_the_users_active_key_pays_before_the_platform(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user, model = uuid.uuid4(), models["gpt-4o"]
    async with database.connection() as connection:
        await connection.execute(
            "insert into user_provider_keys (id, user_id, provider_id, encrypted_api_key, key_prefix)"
            " select $1, $2, provider_id, 'x', 'sk' from llm_models where id = $3",
            uuid.uuid4(),
            user,
            model,
        )
    await store.record([report(user, model), report(user, models["deepseek/deepseek-chat"])])
    await store.record([report(user, model, payer="PLATFORM")])
    assert sorted(row[2] for row in await stored(database, user)) == ["PLATFORM", "PLATFORM", "USER_KEY"]


async def test_an_unknown_model_fails_alone(recorder: UsageRecorder, models: dict[str, uuid.UUID]) -> None:
    user = uuid.uuid4()
    good, bad = await asyncio.gather(
        recorder.record(report(user, models["gpt-4o"])),
        recorder.record(report(user, uuid.uuid4())),
        return_exceptions=True,
    )
    assert not isinstance(good, Exception)
    assert isinstance(bad, DomainError)
    assert bad.reason == "RESOURCE_NOT_FOUND"


async def test_a_record_that_cannot_be_stored_does_not_take_its_neighbours_with_it(
    recorder: UsageRecorder, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user, model = uuid.uuid4(), models["gpt-4o"]
    outcomes = await asyncio.gather(
        *(recorder.record(report(user, model, input_tokens=tokens)) for tokens in (1, -1, 2)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert len(await stored(database, user)) == 2


async def test_who_waits_is_answered_when_the_recorder_stops(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user, recorder = uuid.uuid4(), quiet_recorder(store)
    await recorder.start()
    waiting = [asyncio.create_task(recorder.record(report(user, models["gpt-4o"]))) for _ in range(1200)]
    await asyncio.sleep(0)
    await recorder.stop()
    assert len({receipt.usage_id for receipt in await asyncio.gather(*waiting)}) == 1200
    assert len(await stored(database, user)) == 1200
    with pytest.raises(DomainError, match="unavailable"):
        await recorder.record(report(user, models["gpt-4o"]))


async def test_whoever_watches_a_budget_is_told_of_the_spend_with_the_commit(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    watched, other, unlimited = (uuid.uuid4() for _ in range(3))
    budgets, decision, told = BudgetStore(database), uuid.uuid4(), asyncio.Queue[str]()

    def hear(*notification: str) -> None:
        told.put_nowait(notification[3])

    async with database.connection() as connection:
        for user, budget in ((watched, Decimal(0)), (other, Decimal(10)), (unlimited, None)):
            await connection.execute(
                "insert into user_llm_settings (user_id, monthly_budget_usd) values ($1, $2)", user, budget
            )
        await connection.add_listener("llmrouter_spend", hear)
        await budgets.hold(other, decision, Decimal(1), Decimal(10), now=NOW, ttl=timedelta(minutes=1))
        first = report(watched, models["gpt-4o"])
        nobody = report(uuid.uuid4(), models["gpt-4o"])
        await store.record([first, report(unlimited, models["gpt-4o"]), nobody])
        await store.record([first])  # nothing new
        next_month = report(other, models["gpt-4o"], occurred_at=NOW + timedelta(seconds=1))
        failed = report(other, models["gpt-4o"], decision_id=decision, succeeded=False)
        await store.record([next_month, failed])
        heard = [await asyncio.wait_for(told.get(), 5) for _ in range(3)]
        await connection.remove_listener("llmrouter_spend", hear)
    assert told.empty()
    assert heard[0] == f"{watched} 2026-03-01 0.0035000000 0.0000000000"
    assert sorted(heard[1:]) == [
        f"{other} 2026-03-01 0.0035000000 0.9965000000",
        f"{other} 2026-04-01 0.0035000000 0.0000000000",
    ]


async def test_a_failure_is_stored_with_its_reason(
    store: UsageStore, database: Database, models: dict[str, uuid.UUID]
) -> None:
    user = uuid.uuid4()
    failures = [*Failure, None]
    await store.record([report(user, models["gpt-4o"], succeeded=False, failure=failure) for failure in failures])
    async with database.connection() as connection:
        rows = await connection.fetch("select failure from llm_usage_logs where user_id = $1 order by id", user)
    assert [row["failure"] for row in rows] == [failure.name if failure else None for failure in failures]
