"""Buckets and single records, as they are read again."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from llmrouter_server.usage.period import Period
from llmrouter_server.usage.record import Failure
from llmrouter_server.usage.rollup import Only
from usage_samples import model_ids, report, usage_store

if TYPE_CHECKING:
    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.record import StoredRecord
    from llmrouter_server.usage.store import UsageStore

NOON = datetime(2026, 2, 28, 12, 30, tzinfo=UTC)
FEBRUARY_AND_MARCH = Period(date(2026, 2, 1), date(2026, 3, 31))
ALL = Only()


@pytest.fixture
def store(database: Database) -> UsageStore:
    return usage_store(database)


@pytest.fixture(scope="session")
async def models(database: Database) -> dict[str, uuid.UUID]:
    return await model_ids(database)


async def page(
    store: UsageStore,
    user: uuid.UUID,
    *,
    period: Period = FEBRUARY_AND_MARCH,
    only: Only = ALL,
    status: str | None = None,
    before: tuple[datetime, uuid.UUID] | None = None,
    limit: int = 100,
) -> list[StoredRecord]:
    return await store.records(user, period, only, status=status, before=before, limit=limit)


async def test_days_and_hours_are_those_of_utc_and_only_those_with_usage(
    store: UsageStore, models: dict[str, uuid.UUID]
) -> None:
    user, model = uuid.uuid4(), models["gpt-4o"]
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    moments = [NOON, NOON + timedelta(minutes=29), midnight - timedelta(microseconds=1), midnight]
    await store.record([report(user, model, occurred_at=moment) for moment in moments])
    days = await store.days(user, FEBRUARY_AND_MARCH, ALL)
    assert {day: total.requests for day, total in days.items()} == {date(2026, 2, 28): 3, date(2026, 3, 1): 1}
    hours = await store.hours(user, Period(date(2026, 2, 28), date(2026, 2, 28)), ALL)
    assert {hour: total.requests for hour, total in hours.items()} == {
        datetime(2026, 2, 28, 12, tzinfo=UTC): 2,
        datetime(2026, 2, 28, 23, tzinfo=UTC): 1,
    }
    assert await store.days(uuid.uuid4(), FEBRUARY_AND_MARCH, ALL) == {}


async def test_a_bucket_sums_everything_of_its_time(store: UsageStore, models: dict[str, uuid.UUID]) -> None:
    user = uuid.uuid4()
    await store.record(
        [
            report(user, models["gpt-4o"], occurred_at=NOON, latency_ms=100),
            report(user, models["gpt-4o-mini"], occurred_at=NOON, latency_ms=301, payer="USER_KEY"),
            report(user, models["gpt-4o"], occurred_at=NOON, latency_ms=9999, succeeded=False),
        ]
    )
    [by_day] = (await store.days(user, FEBRUARY_AND_MARCH, ALL)).values()
    [by_hour] = (await store.hours(user, FEBRUARY_AND_MARCH, ALL)).values()
    assert by_day == by_hour
    assert (by_day.requests, by_day.failed_requests, by_day.input_tokens, by_day.output_tokens) == (2, 1, 3000, 300)
    assert (by_day.latency_ms_sum, by_day.latency_count, by_day.mean_latency_ms) == (401, 2, 200)
    # 2 x (0.0025 + 0.001) for gpt-4o, and 0.00015 + 0.00006 for gpt-4o-mini
    assert by_day.cost_usd == Decimal("0.00721")


async def test_buckets_can_be_of_one_provider_model_or_level_alone(
    store: UsageStore, models: dict[str, uuid.UUID], database: Database
) -> None:
    user, big, small = uuid.uuid4(), models["o1-preview"], models["Qwen/Qwen2.5-32B-Instruct"]
    async with database.connection() as connection:
        provider = await connection.fetchval("select provider_id from llm_models where id = $1", big)
    await store.record([report(user, model, occurred_at=NOON) for model in (big, big, small)])

    async def requests(only: Only) -> list[int]:
        found = [await store.days(user, FEBRUARY_AND_MARCH, only), await store.hours(user, FEBRUARY_AND_MARCH, only)]
        return [sum(total.requests for total in sums.values()) for sums in found]

    assert await requests(ALL) == [3, 3]
    assert await requests(Only(model_id=big)) == [2, 2]
    assert await requests(Only(provider_id=provider)) == [2, 2]
    assert await requests(Only(power_level="PRECISION")) == [2, 2]
    assert await requests(Only(power_level="ECO")) == [1, 1]
    assert await requests(Only(power_level="ECO", model_id=big)) == [0, 0]


async def test_a_record_is_read_as_it_was_reported(store: UsageStore, models: dict[str, uuid.UUID]) -> None:
    user, decision = uuid.uuid4(), uuid.uuid4()
    told = report(
        user,
        models["gpt-4o"],
        occurred_at=NOON,
        succeeded=False,
        failure=Failure.RATE_LIMITED,
        error_message="slow down",
        decision_id=decision,
        payer="USER_KEY",
        latency_ms=None,
        cached_tokens=800,
        reasoning_tokens=60,
        is_estimated=True,
    )
    await store.record([told])
    [record] = await page(store, user)
    assert (record.usage_id, record.request_id, record.occurred_at) == (told.usage_id, told.request_id, NOON)
    assert (record.provider_name, record.model_name, record.power_level) == ("OpenAI", "gpt-4o", "BALANCED")
    assert (record.input_tokens, record.output_tokens, record.cost_usd) == (1000, 100, Decimal("0.0035"))
    assert (record.latency_ms, record.status, record.failure) == (None, "error", "RATE_LIMITED")
    assert (record.error_message, record.decision_id, record.payer) == ("slow down", decision, "USER_KEY")
    assert (record.cached_tokens, record.reasoning_tokens, record.is_estimated) == (800, 60, True)


async def test_pages_follow_each_other_newest_first_also_among_records_of_one_moment(
    store: UsageStore, models: dict[str, uuid.UUID]
) -> None:
    user = uuid.uuid4()
    moments = [NOON + timedelta(hours=9) * (number // 4) for number in range(17)]  # into March
    await store.record([report(user, models["gpt-4o"], occurred_at=moment) for moment in moments])
    await store.record([report(uuid.uuid4(), models["gpt-4o"], occurred_at=NOON)])
    whole = await page(store, user)
    assert len(whole) == 17
    assert whole == sorted(whole, key=lambda record: (record.occurred_at, record.usage_id), reverse=True)
    pages: list[StoredRecord] = []
    before = None
    while found := await page(store, user, before=before, limit=5):
        pages += found
        before = found[-1].occurred_at, found[-1].usage_id
    assert pages == whole


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (datetime(2030, 1, 1, tzinfo=UTC), 3),  # later than the period: from its end
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
    ],
)
async def test_a_place_outside_of_the_period_shows_nothing_from_outside(
    store: UsageStore, models: dict[str, uuid.UUID], before: datetime, expected: int
) -> None:
    user = uuid.uuid4()
    day = Period(date(2026, 2, 28), date(2026, 2, 28))
    inside = [day.start, NOON, day.end]
    outside = [day.start - timedelta(microseconds=1), day.end + timedelta(microseconds=1)]
    await store.record([report(user, models["gpt-4o"], occurred_at=moment) for moment in inside + outside])
    assert [record.occurred_at for record in await page(store, user, period=day)] == inside[::-1]
    assert len(await page(store, user, period=day, before=(before, uuid.uuid4()))) == expected


async def test_records_can_be_of_one_kind_alone(store: UsageStore, models: dict[str, uuid.UUID]) -> None:
    user, big, small = uuid.uuid4(), models["o1-preview"], models["gpt-4o"]  # both of OpenAI
    kinds: list[dict[str, Any]] = [{}, {"succeeded": False}]
    await store.record([report(user, model, occurred_at=NOON, **kind) for model in (big, small) for kind in kinds])
    [first, *_] = await page(store, user, only=Only(model_id=small))
    assert len(await page(store, user, only=Only(model_id=small))) == 2
    assert len(await page(store, user, only=Only(provider_id=first.provider_id))) == 4
    assert len(await page(store, user, only=Only(power_level="PRECISION"), status="error")) == 1
    assert {record.status for record in await page(store, user, status="success")} == {"success"}
    assert await page(store, user, only=Only(provider_id=uuid.uuid4())) == []


async def test_the_first_and_the_last_day_of_the_calendar_can_be_asked_for(store: UsageStore) -> None:
    user = uuid.uuid4()
    for day in (date.min, date.max):
        period = Period(day, day)
        assert await page(store, user, period=period) == []
        assert await store.days(user, period, ALL) == await store.hours(user, period, ALL) == {}
