"""What is recorded of chat requests that are over."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from gateway_samples import HOLD, LASTS, NOW, Away, Books, Gateway, ended, plan, running
from llmrouter_server import errors
from llmrouter_server.gateway import reporting
from usage_samples import report as a_report

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from llmrouter_server.gateway.ended import Ended
    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.record import Report

ZERO = Decimal(0)
USED = Decimal("0.00235")  # 700 tokens in, 60 out of gpt-4o
USED_OF_SECOND = Decimal("0.000141")  # the same of gpt-4o-mini


async def test_a_success_settles_its_hold_and_the_request_is_closed(gateway: Gateway) -> None:
    made = await gateway.begin()
    assert await gateway.books(made.user_id) == Books(ZERO, HOLD, HOLD, ZERO, 1)
    assert await gateway.reporter.report([ended(made)]) == 1
    assert await gateway.books(made.user_id) == Books(USED, ZERO, ZERO, USED, 0)
    assert await gateway.records(made.user_id) == [(1, "success", None, 700, 60, 100, False)]


async def test_all_attempts_are_recorded_in_the_month_of_the_plan(gateway: Gateway) -> None:
    made = await gateway.begin()
    gateway.now = NOW + timedelta(minutes=10)  # April
    await gateway.reporter.report([ended(made, "503", "200")])
    assert await gateway.books(made.user_id) == Books(USED_OF_SECOND, ZERO, ZERO, USED_OF_SECOND, 0)
    assert await gateway.records(made.user_id) == [
        (1, "error", "SERVER_ERROR", 0, 0, 0, False),
        (2, "success", None, 700, 60, 100, False),
    ]


async def test_when_every_attempt_failed_the_hold_is_given_back(gateway: Gateway) -> None:
    made = await gateway.begin()
    await gateway.reporter.report([ended(made, "503", "429", status=429)])
    assert await gateway.books(made.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert [record[2] for record in await gateway.records(made.user_id)] == ["SERVER_ERROR", "RATE_LIMITED"]


async def test_without_an_attempt_the_hold_is_given_back_and_nothing_recorded(gateway: Gateway) -> None:
    made = await gateway.begin()
    await gateway.reporter.report([ended(made, attempts="-", flags="DC", status=0)])
    assert await gateway.books(made.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert await gateway.records(made.user_id) == []


async def test_who_hung_up_pays_what_was_produced_and_the_rest_is_given_back(gateway: Gateway) -> None:
    made = await gateway.begin()
    stream = {"events": 32, "bytes": 8000}
    await gateway.reporter.report([ended(made, usage=None, stream=stream, flags="DC", bytes=12_000)])
    cost = Decimal("0.00248")  # 800 in, 48 out
    assert await gateway.books(made.user_id) == Books(cost, ZERO, ZERO, cost, 0)
    assert await gateway.records(made.user_id) == [(1, "error", "CANCELLED", 800, 48, 0, True)]


async def test_a_request_that_is_reported_again_counts_once(gateway: Gateway) -> None:
    made = await gateway.begin()
    assert await gateway.reporter.report([ended(made, "503", "200")] * 2) == 1
    before = await gateway.books(made.user_id)
    assert await gateway.reporter.report([ended(made, "503", "200")]) == 0
    assert await gateway.reporter.report([]) == 0
    assert await gateway.books(made.user_id) == before
    assert len(await gateway.records(made.user_id)) == 2


async def test_the_same_request_reported_by_two_replicas_at_once_counts_once(
    gateway: Gateway, database: Database
) -> None:
    other = await running(database)
    for outcomes in (("503", "200"), ("503", "401"), ("200",)):
        made = await gateway.begin()
        told = [ended(made, *outcomes)]
        await asyncio.gather(*(each.reporter.report(told) for each in (gateway, other, gateway, other)))
        books = await gateway.books(made.user_id)
        assert (books.held, books.holds, books.open) == (ZERO, ZERO, 0)
        assert books.spent == books.recorded
        assert len(await gateway.records(made.user_id)) == len(outcomes)
    await other.stop()


@pytest.mark.parametrize("step", ["budget.release", "store.close"])
async def test_a_server_that_dies_in_between_leaves_the_rest_to_the_next_one(
    gateway: Gateway, database: Database, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = await gateway.begin()
    owner, name = step.split(".")
    with monkeypatch.context() as patched:
        Away(patched, getattr(gateway, owner), name, errors.unavailable(), 1)
        with pytest.raises(errors.DomainError):
            await gateway.reporter.report([ended(made, "503", "403")])
    assert (await gateway.books(made.user_id)).open == 1
    restarted = await running(database)
    assert await restarted.reporter.report([ended(made, "503", "403")]) == 1
    assert await restarted.books(made.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert len(await restarted.records(made.user_id)) == 2
    await restarted.stop()


async def test_a_hold_is_given_back_only_after_the_failed_attempts_are_recorded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real, seen = await gateway.begin(), gateway.budget.release, []

    async def release(hold_id: uuid.UUID) -> None:
        seen.append(len(await gateway.records(made.user_id)))
        await real(hold_id)

    monkeypatch.setattr(gateway.budget, "release", release)
    await gateway.reporter.report([ended(made, "503", "500")])
    assert seen == [2]


async def test_what_is_added_is_recorded_behind(gateway: Gateway) -> None:
    plans = [await gateway.begin() for _ in range(5)]
    for made in plans:
        gateway.reporter.add(ended(made))
    await gateway.reporter.stop()
    assert [(await gateway.books(made.user_id)).open for made in plans] == [0] * 5


async def test_what_waits_is_reported_together_and_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "MAX_BATCH", 3)
    told = [ended(await gateway.begin()) for _ in range(5)]
    batches, real = [], gateway.reporter.report

    async def report(batch: Sequence[Ended]) -> int:
        batches.append(list(batch))
        return await real(batch)

    monkeypatch.setattr(gateway.reporter, "report", report)
    for each in told:
        gateway.reporter.add(each)
    await gateway.reporter.stop()
    assert batches == [told[:3], told[3:]]


async def test_while_the_database_is_away_reports_are_kept_and_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "FIRST_RETRY_S", 0.001)
    gateway = await running(database)
    made = await gateway.begin()
    away = Away(monkeypatch, gateway.recorder, "record_all", errors.unavailable(), 3)
    gateway.reporter.add(ended(made))
    async with asyncio.timeout(20):
        while (await gateway.books(made.user_id)).open:
            await asyncio.sleep(0.01)
    assert away.left == 0
    assert (await gateway.books(made.user_id)).spent == USED
    await gateway.stop()


async def test_one_that_cannot_be_recorded_takes_no_other_with_it_and_stays_open(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await gateway.begin(), await gateway.begin()
    real = gateway.recorder.record_all

    async def record_all(reports: Sequence[Report]) -> Any:
        if any(report.decision_id == bad.decision_id for report in reports):
            raise RuntimeError("broken")
        return await real(reports)

    monkeypatch.setattr(gateway.recorder, "record_all", record_all)
    await gateway.reporter.report([ended(bad), ended(good)])
    assert (await gateway.books(good.user_id)).open == 0
    assert (await gateway.books(bad.user_id)).open == 1
    [line] = [line for line in caplog.records if line.message == "a chat request could not be recorded"]
    assert vars(line)["decision_id"] == str(bad.decision_id)


async def test_a_report_that_fails_in_a_new_way_does_not_end_the_reporter(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, made = await gateway.begin(), await gateway.begin()
    dropped = gateway.reporter._dropped._value.get()
    away = Away(monkeypatch, gateway.store, "find", RuntimeError("broken"), 1)
    gateway.reporter.add(ended(lost))
    async with asyncio.timeout(20):
        while away.left:
            await asyncio.sleep(0)
    gateway.reporter.add(ended(made))
    await gateway.reporter.stop()
    assert [(await gateway.books(each.user_id)).open for each in (lost, made)] == [1, 0]
    assert gateway.reporter._dropped._value.get() == dropped + 1


async def test_when_too_many_wait_the_newest_is_dropped_and_counted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.reporter.stop()
    monkeypatch.setattr(reporting, "MAX_WAITING", 2)
    dropped = gateway.reporter._dropped._value.get()
    for _ in range(3):
        gateway.reporter.add(ended(plan()))
    assert gateway.reporter._dropped._value.get() == dropped + 1


async def test_stopping_ends_in_time_and_leaves_the_rest_to_the_journal(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = await gateway.begin()
    Away(monkeypatch, gateway.store, "find", errors.unavailable(), 10**9)
    monkeypatch.setattr(reporting, "STOP_TIMEOUT_S", 0.1)
    dropped = gateway.reporter._dropped._value.get()
    gateway.reporter.add(ended(made))
    with caplog.at_level(logging.WARNING):
        await gateway.reporter.stop()
    assert "chat requests are left to the journal" in caplog.text
    assert gateway.reporter._dropped._value.get() == dropped + 1


async def test_an_attempt_at_a_model_that_is_gone_is_logged_and_its_hold_given_back(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    made = plan()
    await gateway.budget.hold(made.user_id, made.decision_id, HOLD, Decimal(1), now=NOW, ttl=LASTS)
    await gateway.requests.open(made)
    assert await gateway.reporter.report([ended(made)]) == 1
    assert await gateway.books(made.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert "attempts were refused to be recorded" in caplog.text


async def test_another_report_of_the_decision_settles_it_as_well(gateway: Gateway) -> None:
    """A service may record for a decision itself; the gateway's own report then finds the hold closed."""
    made = await gateway.begin()
    told = a_report(made.user_id, made.candidates[0].model_id, decision_id=made.decision_id, occurred_at=NOW)
    await gateway.recorder.record(told)
    await gateway.reporter.report([ended(made, "503")])
    books = await gateway.books(made.user_id)
    assert (books.held, books.open, books.spent) == (ZERO, 0, books.recorded)
