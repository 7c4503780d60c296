"""What the recorder tells, to whom and when; the store behind it is a stand-in."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import pytest

from llmrouter_server import errors
from llmrouter_server.health.machine import Outcome
from llmrouter_server.runtime.group_commit import GroupCommit
from llmrouter_server.usage.attempts import attempt_of
from llmrouter_server.usage.record import PLATFORM, USER_KEY, Failure, Receipt, Report, UsageRecord
from llmrouter_server.usage.recorder import UsageRecorder
from usage_samples import NOW, NoKeys, report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from llmrouter_server.usage.store import UsageStore

MODEL, OTHER_MODEL, USER = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
PROVIDERS = {model: uuid.uuid4() for model in (MODEL, OTHER_MODEL)}
OWNER, OTHER_OWNER = ((USER, PROVIDERS[model]) for model in (MODEL, OTHER_MODEL))
Told = tuple[str, frozenset[tuple[uuid.UUID, uuid.UUID]], datetime | None]


class StandIn:
    """Stores in memory. `away` makes it fail."""

    def __init__(self) -> None:
        self.stored: dict[tuple[uuid.UUID, str], Receipt] = {}
        self.batches: list[int] = []
        self.away = False

    async def record(self, reports: Sequence[Report]) -> list[Receipt | errors.DomainError]:
        if self.away:
            raise errors.unavailable()
        self.batches.append(len(reports))
        return [self._store(each) for each in reports]

    def _store(self, each: Report) -> Receipt | errors.DomainError:
        if each.model_id not in PROVIDERS:
            return errors.not_found("model")
        if each.key in self.stored:
            before = self.stored[each.key]
            return Receipt(before.usage_id, before.cost_usd, record=None)
        record = UsageRecord(each, PROVIDERS[each.model_id], each.payer or PLATFORM, Decimal(1))
        self.stored[each.key] = Receipt(each.usage_id, record.cost_usd, record)
        return self.stored[each.key]


class Marks:
    """Remembers what it was told of keys. `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.problem: Exception | None = None

    async def mark_refused(self, pairs: Collection[tuple[uuid.UUID, uuid.UUID]], at: datetime) -> None:
        await self._take(("refused", frozenset(pairs), at))

    async def mark_working(self, pairs: Collection[tuple[uuid.UUID, uuid.UUID]]) -> None:
        await self._take(("working", frozenset(pairs), None))

    async def _take(self, told: Told) -> None:
        await self.may_answer.wait()
        if self.problem is not None:
            raise self.problem
        self.told.append(told)


def attempt(model: uuid.UUID = MODEL, *, fails_by: Failure | None = None, **changes: object) -> Report:
    values = {"payer": USER_KEY, "succeeded": fails_by is None, "failure": fails_by}
    return report(USER, model, **(values | changes))


@pytest.fixture
def store() -> StandIn:
    return StandIn()


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def seen() -> list[UsageRecord]:
    return []


@pytest.fixture
async def recorder(store: StandIn, marks: Marks, seen: list[UsageRecord]) -> AsyncIterator[UsageRecorder]:
    recorder = UsageRecorder(cast("UsageStore", store), observe=seen.extend, keys=marks)
    await recorder.start()
    yield recorder
    await recorder.stop()


async def test_new_records_are_shown_before_they_are_acknowledged_and_repeated_ones_are_not(
    recorder: UsageRecorder, seen: list[UsageRecord]
) -> None:
    first = attempt()
    receipt = await recorder.record(first)
    assert [record.report for record in seen] == [first]
    again = await recorder.record(attempt(request_id=first.request_id))
    assert again.is_duplicate
    assert again.usage_id == receipt.usage_id
    assert len(seen) == 1


async def test_what_is_not_stored_is_not_shown(
    recorder: UsageRecorder, store: StandIn, seen: list[UsageRecord], marks: Marks
) -> None:
    with pytest.raises(errors.DomainError, match="no such model"):
        await recorder.record(attempt(uuid.uuid4()))
    store.away = True
    with pytest.raises(errors.DomainError, match="unavailable"):
        await recorder.record(attempt())
    await recorder.stop()
    assert seen == marks.told == []


async def test_an_observer_that_fails_takes_no_acknowledgement_with_it(
    store: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Sequence[UsageRecord]) -> None:
        raise RuntimeError("broken")

    recorder = UsageRecorder(cast("UsageStore", store), observe=fail, keys=NoKeys())
    await recorder.start()
    assert not (await recorder.record(attempt())).is_duplicate
    await recorder.stop()
    assert "recorded usage could not be observed" in caplog.text


async def test_a_refused_key_and_a_working_one_are_told(recorder: UsageRecorder, marks: Marks) -> None:
    await recorder.record_all([attempt(fails_by=Failure.UNAUTHORIZED), attempt(OTHER_MODEL)])
    await recorder.stop()
    assert marks.told == [("refused", frozenset({OWNER}), NOW), ("working", frozenset({OTHER_OWNER}), None)]


@pytest.mark.parametrize(
    "says_nothing",
    [
        attempt(payer=PLATFORM),
        attempt(payer=PLATFORM, fails_by=Failure.UNAUTHORIZED),
        attempt(succeeded=False),
        *(attempt(fails_by=failure) for failure in Failure if failure is not Failure.UNAUTHORIZED),
    ],
)
async def test_other_attempts_say_nothing_of_a_users_key(
    recorder: UsageRecorder, marks: Marks, says_nothing: Report
) -> None:
    await recorder.record(says_nothing)
    await recorder.stop()
    assert marks.told == []


@pytest.mark.parametrize("order", [lambda reports: reports, lambda reports: reports[::-1]])
async def test_the_newest_word_on_a_key_counts_however_the_records_come(
    recorder: UsageRecorder, marks: Marks, order: Callable[[list[Report]], list[Report]]
) -> None:
    earlier, later = NOW - timedelta(minutes=2), NOW - timedelta(minutes=1)
    await recorder.record_all(
        order(
            [
                attempt(occurred_at=earlier),
                attempt(fails_by=Failure.UNAUTHORIZED, occurred_at=later),
                attempt(OTHER_MODEL, fails_by=Failure.UNAUTHORIZED, occurred_at=earlier),
                attempt(OTHER_MODEL, occurred_at=later),
            ]
        )
    )
    await recorder.stop()
    assert marks.told == [("refused", frozenset({OWNER}), later), ("working", frozenset({OTHER_OWNER}), None)]


async def test_each_refused_key_is_told_with_the_moment_it_was_tried(recorder: UsageRecorder, marks: Marks) -> None:
    earlier = NOW - timedelta(minutes=2)
    await recorder.record_all(
        [
            attempt(fails_by=Failure.UNAUTHORIZED),
            attempt(OTHER_MODEL, fails_by=Failure.UNAUTHORIZED, occurred_at=earlier),
        ]
    )
    await recorder.stop()
    assert marks.told == [("refused", frozenset({OTHER_OWNER}), earlier), ("refused", frozenset({OWNER}), NOW)]


async def test_nobody_waits_for_keys_to_be_marked_but_the_end(recorder: UsageRecorder, marks: Marks) -> None:
    marks.may_answer.clear()
    for number in range(5):
        await recorder.record(attempt(occurred_at=NOW + timedelta(seconds=number)))
    assert marks.told == []
    stopping = asyncio.create_task(recorder.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    marks.may_answer.set()
    await stopping
    # The first is told alone; the four that came meanwhile are one.
    assert marks.told == [("working", frozenset({OWNER}), None)] * 2


@pytest.mark.parametrize("problem", [errors.unavailable(), RuntimeError("broken")])
async def test_keys_that_cannot_be_marked_are_logged_and_the_next_ones_are_told(
    recorder: UsageRecorder, marks: Marks, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    marks.problem = problem
    with caplog.at_level(logging.WARNING):
        await recorder.record(attempt())
        while "keys could not be marked" not in caplog.text:
            await asyncio.sleep(0)
    marks.problem = None
    await recorder.record(attempt())
    await recorder.stop()
    assert marks.told == [("working", frozenset({OWNER}), None)]


async def test_all_reports_of_a_call_are_written_together_and_answered_in_their_order(
    recorder: UsageRecorder, store: StandIn
) -> None:
    first = attempt()
    outcomes = await recorder.record_all([first, attempt(uuid.uuid4()), attempt(request_id=first.request_id)])
    assert store.batches == [3]
    assert isinstance(outcomes[1], errors.DomainError)
    assert outcomes[1].reason == "RESOURCE_NOT_FOUND"
    assert [outcome.is_duplicate for outcome in (outcomes[0], outcomes[2]) if isinstance(outcome, Receipt)] == [
        False,
        True,
    ]
    assert await recorder.record_all([]) == []


async def test_when_some_cannot_be_stored_the_whole_call_is_unavailable(
    recorder: UsageRecorder, store: StandIn
) -> None:
    store.away = True
    with pytest.raises(errors.DomainError, match="unavailable"):
        await recorder.record_all([attempt(), attempt(uuid.uuid4())])


async def test_what_was_taken_is_given_up_when_there_is_no_room_for_the_rest(
    recorder: UsageRecorder, store: StandIn
) -> None:
    await recorder._commits.stop()
    recorder._commits = GroupCommit("usage", recorder._write, max_waiting=2)
    await recorder._commits.start()
    with pytest.raises(errors.DomainError, match="unavailable"):
        await recorder.record_all([attempt(), attempt(), attempt()])
    while recorder._commits._waiting:
        await asyncio.sleep(0)
    await recorder.record(attempt())
    assert store.batches == [1]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Failure.CONNECT, Outcome.PROVIDER_FAULT),
        (Failure.TIMEOUT, Outcome.PROVIDER_FAULT),
        (Failure.SERVER_ERROR, Outcome.PROVIDER_FAULT),
        (Failure.RATE_LIMITED, Outcome.PROVIDER_FAULT),
        (Failure.UNAUTHORIZED, Outcome.NEUTRAL),
        (Failure.CALLER, Outcome.NEUTRAL),
        (Failure.CANCELLED, Outcome.NEUTRAL),
        (None, Outcome.NEUTRAL),
    ],
)
def test_only_the_providers_faults_count_against_it(failure: Failure | None, outcome: Outcome) -> None:
    record = UsageRecord(attempt(succeeded=False, failure=failure), PROVIDERS[MODEL], PLATFORM, Decimal(1))
    assert attempt_of(record).outcome is outcome


def test_a_success_counts_for_the_provider_with_its_moment_and_latency() -> None:
    seen = attempt_of(UsageRecord(attempt(), PROVIDERS[MODEL], USER_KEY, Decimal(1)))
    assert (seen.outcome, seen.at, seen.latency_ms) == (Outcome.SUCCESS, NOW.timestamp(), 200)
    assert (seen.provider_id, seen.model_id) == (PROVIDERS[MODEL], MODEL)
