"""What is remembered of users: never older than the last change that was heard of, and never too much."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from llmrouter_server import errors
from llmrouter_server.byok.live_keys import KeptKey
from llmrouter_server.routing.state import UserState, UserStates
from llmrouter_server.settings.preferences import Preferences

USER, OTHER = UUID(int=1), UUID(int=2)
MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)


class Source:
    """Stands for the database: what it holds, what was asked of it, and whether changes are heard of."""

    def __init__(self) -> None:
        self.spent = Decimal(0)
        self.reads: list[tuple[UUID, date]] = []
        self.is_told = True
        self.now = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
        self.slow: asyncio.Event | None = None
        self.states = UserStates(self.read, is_told=lambda: self.is_told, most=3, now=lambda: self.now)

    async def read(self, user_id: UUID, month: date) -> UserState:
        self.reads.append((user_id, month))
        state = UserState(month=month, spent_usd=self.spent)
        if self.slow is not None:
            await self.slow.wait()
        return state


async def test_a_state_is_read_once() -> None:
    source = Source()
    first = await source.states.get(USER)
    assert await source.states.get(USER) is first
    assert source.reads == [(USER, MARCH)]


async def test_a_change_is_seen_by_the_next_use() -> None:
    source = Source()
    await source.states.get(USER)
    source.spent = Decimal(7)
    source.states.user_changed(str(USER))
    assert (await source.states.get(USER)).spent_usd == 7


async def test_the_first_of_many_reads_that_overlap_is_kept() -> None:
    source = Source()
    first, later = asyncio.Event(), asyncio.Event()
    reading = []
    for source.slow in (first, first, later):
        reading.append(asyncio.create_task(source.states.get(USER)))
        await asyncio.sleep(0)
    first.set()
    states = await asyncio.gather(*reading[:2])
    assert await source.states.get(USER) in states
    assert len(source.reads) == 3
    later.set()
    await reading[2]


async def test_a_change_of_another_user_forgets_nothing() -> None:
    source = Source()
    await source.states.get(USER)
    source.states.user_changed(str(OTHER))
    await source.states.get(USER)
    assert len(source.reads) == 1


async def test_what_was_being_read_when_a_change_was_heard_of_is_not_kept() -> None:
    source = Source()
    source.slow = asyncio.Event()
    reading = asyncio.create_task(source.states.get(USER))
    await asyncio.sleep(0)
    source.spent = Decimal(7)
    source.states.user_changed(str(USER))
    source.slow.set()
    assert (await reading).spent_usd == 0  # asked before the change was heard of
    assert (await source.states.get(USER)).spent_usd == 7


@pytest.mark.parametrize("hear", [UserStates.forget_all, lambda states: states.spend_changed(f"{USER} {MARCH} 7 0")])
async def test_nor_is_it_kept_after_any_other_news(hear: object) -> None:
    source = Source()
    source.slow = asyncio.Event()
    reading = asyncio.create_task(source.states.get(USER))
    await asyncio.sleep(0)
    source.spent = Decimal(7)
    hear(source.states)
    source.slow.set()
    await reading
    assert (await source.states.get(USER)).spent_usd == 7


async def test_while_changes_are_not_heard_of_every_use_reads_and_nothing_is_kept() -> None:
    source = Source()
    await source.states.get(USER)
    source.is_told = False
    source.spent = Decimal(7)
    assert (await source.states.get(USER)).spent_usd == 7
    source.spent = Decimal(8)
    assert (await source.states.get(USER)).spent_usd == 8


async def test_after_a_gap_everything_is_read_again() -> None:
    source = Source()
    await source.states.get(USER)
    source.spent = Decimal(7)
    source.states.forget_all()
    assert (await source.states.get(USER)).spent_usd == 7


async def test_spend_is_changed_in_place_without_reading() -> None:
    source = Source()
    await source.states.get(USER)
    source.states.spend_changed(f"{USER} {MARCH} 12.3456789012 3.5")
    assert (await source.states.get(USER)).spent_usd == Decimal("12.3456789012")
    assert len(source.reads) == 1


async def test_spend_of_another_month_is_not_taken_for_this_one() -> None:
    source = Source()
    await source.states.get(USER)
    source.states.spend_changed(f"{USER} {APRIL} 99 0")
    assert (await source.states.get(USER)).spent_usd == 0


async def test_a_new_month_is_read_anew() -> None:
    source = Source()
    source.spent = Decimal(50)
    assert (await source.states.get(USER)).spent_usd == 50
    source.now += timedelta(minutes=1)
    source.spent = Decimal(0)
    assert (await source.states.get(USER)).spent_usd == 0
    assert source.reads == [(USER, MARCH), (USER, APRIL)]


async def test_no_more_than_so_many_are_kept_and_the_one_used_longest_ago_goes_first() -> None:
    source = Source()
    users = [uuid4() for _ in range(3)]
    for user in users:
        await source.states.get(user)
    await source.states.get(users[0])
    await source.states.get(OTHER)
    source.reads.clear()
    for user in (OTHER, users[2], users[0]):
        await source.states.get(user)
    assert source.reads == []
    await source.states.get(users[1])
    assert source.reads == [(users[1], MARCH)]


async def test_a_read_that_fails_is_not_remembered() -> None:
    source = Source()

    async def fail(_user: UUID, _month: date) -> UserState:
        raise errors.unavailable()

    states = UserStates(fail, is_told=lambda: True, most=3, now=lambda: source.now)
    for _ in range(2):
        with pytest.raises(errors.DomainError):
            await states.get(USER)


def test_a_state_does_not_show_the_keys_in_it() -> None:
    key = KeptKey(OTHER, "gAAAAA-of-somebody")
    state = UserState(month=MARCH, sealed_keys={USER: key})
    assert "gAAAAA" not in f"{state} {state!r} {key} {key!r} {state.sealed_keys}"


def test_a_refused_key_is_left_out_for_fifteen_minutes() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    state = UserState(month=MARCH, keyed_providers=frozenset({USER, OTHER}), refused_at={USER: at})
    assert state.failing_keys(at) == {USER}
    assert state.failing_keys(at + timedelta(minutes=14, seconds=59)) == {USER}
    assert state.failing_keys(at + timedelta(minutes=15)) == set()


@pytest.mark.parametrize(
    ("budget", "spent", "is_over"),
    [
        (None, "1000000", False),
        ("10", "9.9999999999", False),
        ("10", "10", True),
        ("10", "10.01", True),
        ("0", "0", True),
    ],
)
def test_a_budget_is_used_up_when_the_spend_has_reached_it(budget: str | None, spent: str, is_over: bool) -> None:
    preferences = replace(Preferences(), monthly_budget_usd=Decimal(budget) if budget else None)
    assert UserState(month=MARCH, preferences=preferences, spent_usd=Decimal(spent)).is_over_budget == is_over
