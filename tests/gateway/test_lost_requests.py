"""Chat requests that nobody reports, and how a report and the estimate keep out of each other's way."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from gateway_samples import HOLD, LASTS, NOW, Away, Books, Gateway, ended, running
from llmrouter_server import errors
from llmrouter_server.gateway import reporting
from llmrouter_server.gateway.store import LEASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.record import Report

ZERO = Decimal(0)
USED = Decimal("0.00235")  # 700 tokens in, 60 out of gpt-4o
OVER = NOW + LASTS


async def test_what_nobody_reported_in_time_is_recorded_at_worst(gateway: Gateway) -> None:
    lost, free = await gateway.begin(), await gateway.begin(held=False)
    await gateway.reporter.expire_lost(OVER - timedelta(microseconds=1))
    assert (await gateway.books(lost.user_id)).open == 1
    await gateway.reporter.expire_lost(OVER)
    assert await gateway.books(lost.user_id) == Books(HOLD, ZERO, ZERO, HOLD, 0)
    assert await gateway.records(lost.user_id) == [(1, "error", None, 1000, 500, 0, True)]
    assert await gateway.records(free.user_id) == [(1, "error", None, 800, 0, 0, True)]


async def test_many_lost_requests_are_recorded_batch_by_batch(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MAX_BATCH", 2)
    plans = [await gateway.begin() for _ in range(5)]
    await gateway.reporter.expire_lost(OVER)
    assert [(await gateway.books(made.user_id)).open for made in plans] == [0] * 5


async def test_a_report_that_comes_after_the_estimate_does_not_count(gateway: Gateway) -> None:
    made = await gateway.begin()
    await gateway.reporter.expire_lost(OVER)
    assert await gateway.reporter.report([ended(made, "503", "200")]) == 0
    assert len(await gateway.records(made.user_id)) == 1


async def test_a_lost_request_that_is_being_recorded_belongs_to_who_took_it_for_a_while(gateway: Gateway) -> None:
    made = await gateway.begin()
    assert (await gateway.store.expired(OVER, 1000))[made.decision_id] == made
    gateway.now = OVER + LEASE / 2
    assert await gateway.reporter.report([ended(made)]) == 0
    assert made.decision_id not in await gateway.store.expired(OVER + LEASE - timedelta(microseconds=1), 1000)
    await gateway.reporter.expire_lost(OVER + LEASE)  # whoever took it died
    assert (await gateway.books(made.user_id)).spent == HOLD


async def test_a_request_does_not_expire_while_its_report_is_being_recorded(gateway: Gateway) -> None:
    made = await gateway.begin()
    gateway.now = OVER + timedelta(minutes=3)  # the database was away until now
    real = gateway.recorder.record_all

    async def record_all(reports: Sequence[Report]) -> Any:
        if reports[0].succeeded:
            await gateway.reporter.expire_lost(gateway.now)
        return await real(reports)

    gateway.recorder.record_all = record_all  # type: ignore[method-assign]
    assert await gateway.reporter.report([ended(made)]) == 1
    assert await gateway.records(made.user_id) == [(1, "success", None, 700, 60, 100, False)]


async def test_a_lost_request_whose_plan_cannot_be_read_is_closed_and_its_hold_given_back(
    gateway: Gateway, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    made = await gateway.begin()
    async with database.connection() as connection:
        spoil = "update llm_gateway_requests set plan = plan - 'stream' where decision_id = $1"
        await connection.execute(spoil, made.decision_id)
    await gateway.reporter.expire_lost(OVER)
    assert await gateway.books(made.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert "a stored plan cannot be read" in caplog.text


async def test_what_was_recorded_but_not_closed_is_not_estimated_on_top(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await gateway.begin()
    Away(monkeypatch, gateway.store, "close", errors.unavailable(), 1)
    with pytest.raises(errors.DomainError):
        await gateway.reporter.report([ended(made)])
    await gateway.reporter.expire_lost(OVER)
    assert await gateway.books(made.user_id) == Books(USED, ZERO, ZERO, USED, 0)


async def test_spent_and_held_never_pass_the_budget_while_all_of_it_happens_at_once(
    gateway: Gateway, database: Database
) -> None:
    """Requests that end well, badly, twice and never, with other records and expiry in between."""
    user, budget, other = uuid.uuid4(), 10 * HOLD, await running(database)
    gateway.store._most_at_once = other.store._most_at_once = 1000
    told = [("200",), ("503", "200"), ("503", "broken"), ("silent",), None]
    highest: list[Decimal] = []

    async def one(number: int) -> None:
        made = gateway.plan(user_id=user)
        if not await gateway.budget.hold(user, made.decision_id, HOLD, budget, now=NOW, ttl=LASTS + LEASE):
            return
        await gateway.requests.open(made)
        outcomes = told[number % len(told)]
        if outcomes is not None:
            over = [ended(made, *outcomes)]
            await asyncio.gather(gateway.reporter.report(over), other.reporter.report(over))
        books = await gateway.books(user)
        highest.append(books.spent + books.held)
        assert books.held == books.holds

    for round_number in range(6):
        await asyncio.gather(*(one(round_number + number) for number in range(20)))
    assert len(highest) > 12
    await asyncio.gather(gateway.reporter.expire_lost(OVER), other.reporter.expire_lost(OVER))
    books = await gateway.books(user)
    assert max(highest) <= budget
    assert (books.held, books.holds, books.open) == (ZERO, ZERO, 0)
    assert ZERO < books.spent == books.recorded <= budget
    await other.stop()
