"""Chat requests are noted before they are made, and how many a user may have at once."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from gateway_samples import LASTS, NOW, Gateway, candidate, money_for, plan
from llmrouter_server import errors
from llmrouter_server.audit.key_reads import KeyRead
from llmrouter_server.audit.store import KeyReadStore
from llmrouter_server.audit.verify import verify
from llmrouter_server.gateway.store import GatewayRequestStore, Opening, OpenRequests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.gateway.plan import Plan

OVER = NOW + LASTS


async def opened(gateway: Gateway, plans: Sequence[Plan]) -> list[str]:
    """Open these in one batch, and return how each fared."""
    outcomes = await gateway.store.open([Opening(each, each.decided_at + LASTS) for each in plans])
    return [outcome.reason if isinstance(outcome, errors.DomainError) else "opened" for outcome in outcomes]


async def a_provider(gateway: Gateway) -> uuid.UUID:
    async with gateway.database.connection() as connection:
        provider: uuid.UUID = await connection.fetchval("select id from llm_providers limit 1")
    return provider


def reading(made: Plan, provider: uuid.UUID) -> KeyRead:
    return KeyRead(
        read_at=NOW,
        user_id=made.user_id,
        provider_id=provider,
        key_id=None,
        payer="PLATFORM",
        reader_id=made.user_id,
        purpose="gateway",
        decision_id=made.decision_id,
    )


async def test_a_request_is_open_until_it_is_closed(gateway: Gateway) -> None:
    made = await gateway.begin(held=False)
    other = uuid.uuid4()
    assert await gateway.store.find([made.decision_id, other], NOW) == {made.decision_id}
    await gateway.requests.close([made.decision_id, other])
    assert await gateway.store.find([made.decision_id], NOW) == set()


async def test_opening_twice_changes_nothing(gateway: Gateway) -> None:
    made = plan()
    assert await opened(gateway, [made, made]) == ["opened", "opened"]
    assert await opened(gateway, [made]) == ["opened"]
    assert (await gateway.books(made.user_id)).open == 1


async def test_a_user_has_no_more_requests_at_once_than_allowed(gateway: Gateway) -> None:
    user, other = uuid.uuid4(), uuid.uuid4()
    first = plan(user_id=user)
    assert await opened(gateway, [first]) == ["opened"]
    batch = [plan(user_id=each) for each in (user, other, user, user, other)]
    assert await opened(gateway, batch) == ["opened", "opened", "opened", "RATE_LIMITED", "opened"]
    assert await opened(gateway, [first, plan(user_id=user)]) == ["opened", "RATE_LIMITED"]
    await gateway.store.close([first.decision_id])
    assert await opened(gateway, [plan(user_id=user)]) == ["opened"]
    with pytest.raises(errors.DomainError, match="at most 3 requests at once") as refused:
        await gateway.requests.open(plan(user_id=user))
    assert refused.value.retry_after_s == 1


async def test_many_at_once_are_opened_up_to_the_limit_exactly(gateway: Gateway) -> None:
    user = uuid.uuid4()
    opening = [gateway.requests.open(plan(user_id=user)) for _ in range(20)]
    outcomes = await asyncio.gather(*opening, return_exceptions=True)
    assert outcomes.count(True) == 3
    assert {type(outcome) for outcome in outcomes} == {bool, errors.DomainError}
    assert (await gateway.books(user)).open == 3


async def test_what_expired_takes_no_room(gateway: Gateway) -> None:
    user = uuid.uuid4()
    await opened(gateway, [plan(user_id=user) for _ in range(3)])
    later = plan(user_id=user, decided_at=OVER - timedelta(microseconds=1))
    assert await opened(gateway, [later]) == ["RATE_LIMITED"]
    assert await opened(gateway, [replace(later, decided_at=OVER)]) == ["opened"]


async def test_a_plan_that_cannot_be_stored_is_unavailable_and_takes_no_other_with_it(gateway: Gateway) -> None:
    bad, good = plan(candidate(model="\0")), plan()
    outcomes = await asyncio.gather(gateway.requests.open(bad), gateway.requests.open(good), return_exceptions=True)
    assert isinstance(outcomes[0], errors.DomainError)
    assert (outcomes[0].reason, outcomes[1]) == ("UNAVAILABLE", True)


async def test_what_the_budget_has_no_room_for_is_not_noted_and_its_keys_are_not_audited(
    gateway: Gateway,
) -> None:
    user, provider = uuid.uuid4(), await a_provider(gateway)
    fits, too_dear, free, next_one = (plan(user_id=user, held=held) for held in (True, True, False, True))

    def opening(made: Plan, amount: int) -> Opening:
        money = money_for(made, Decimal(amount), Decimal(10)) if made.held else None
        return Opening(made, made.decided_at + LASTS, money, (reading(made, provider),))

    outcomes = await gateway.store.open([opening(fits, 6), opening(too_dear, 5), opening(free, 0)])
    assert outcomes == [True, False, True]
    assert await gateway.requests.open(
        next_one, money_for(next_one, Decimal(4), Decimal(10)), [reading(next_one, provider)]
    )
    books = await gateway.books(user)
    assert (books.open, books.held, books.holds) == (3, Decimal(10), Decimal(10))
    audited = await KeyReadStore(gateway.database).list(user, key_id=None, after=None, limit=10)
    assert {each.read.decision_id for each in audited} == {each.decision_id for each in (fits, free, next_one)}


async def test_when_the_audit_cannot_be_written_nothing_is_noted_or_held(gateway: Gateway) -> None:
    made, nobody = plan(held=True), uuid.uuid4()
    with pytest.raises(errors.DomainError, match="try again"):
        await gateway.requests.open(made, money_for(made), [reading(made, nobody)])
    books = await gateway.books(made.user_id)
    assert (books.open, books.held, books.holds) == (0, 0, 0)


async def test_what_there_is_no_room_for_leaves_it_to_what_comes_after_it(gateway: Gateway) -> None:
    user = uuid.uuid4()
    batch = [plan(user_id=user) for _ in range(3)]
    amounts = (Decimal(6), Decimal(5), Decimal(4))
    openings = [
        Opening(each, each.decided_at + LASTS, money_for(each, amount, Decimal(10)))
        for each, amount in zip(batch, amounts, strict=True)
    ]
    assert await gateway.store.open(openings) == [True, False, True]
    books = await gateway.books(user)
    assert (books.open, books.held, books.holds) == (2, Decimal(10), Decimal(10))


async def test_a_batch_from_the_turn_of_a_month_goes_into_both_chains(gateway: Gateway, database_url: str) -> None:
    provider, user = await a_provider(gateway), uuid.uuid4()
    moments = [NOW + timedelta(days=days) for days in (1, 0, 2)]
    openings = [
        Opening(made, made.decided_at + LASTS, reads=(replace(reading(made, provider), read_at=made.decided_at),))
        for made in (plan(decided_at=moment, user_id=user) for moment in moments)
    ]
    assert await gateway.store.open(openings) == [True] * 3
    audited = await KeyReadStore(gateway.database).list(user, key_id=None, after=None, limit=10)
    assert [each.read.read_at for each in audited] == [moments[2], moments[0], moments[1]]
    assert await verify(database_url, lambda _: None) == 0


async def test_replicas_that_open_for_the_same_users_never_wait_in_a_circle_or_overspend(
    gateway: Gateway, database_url: str
) -> None:
    """Postgres would end one of two transactions that wait for each other; here it never has to."""
    provider, draw = await a_provider(gateway), random.Random(3)
    users, budget = [uuid.uuid4() for _ in range(5)], Decimal(30)
    stores = [GatewayRequestStore(gateway.database, most_at_once=40) for _ in range(4)]

    async def replica(store: GatewayRequestStore) -> int:
        opened = 0
        for _ in range(6):
            batch = [plan(user_id=draw.choice(users), decided_at=NOW + timedelta(minutes=n % 2)) for n in range(12)]
            openings = [
                Opening(
                    each,
                    each.decided_at + LASTS,
                    money_for(each, Decimal(draw.randrange(1, 5)), budget),
                    (replace(reading(each, provider), read_at=each.decided_at),),
                )
                for each in batch
            ]
            outcomes = await store.open(openings)
            opened += outcomes.count(True)
            ended = [each.decision_id for each in batch if draw.random() < 0.2]
            await store.close(ended)
            for each in ended:
                await gateway.budget.release(each)
        return opened

    opened = sum(await asyncio.gather(*map(replica, stores)))
    held = [await gateway.budget.state(user, month) for user in users for month in (date(2026, 3, 1), date(2026, 4, 1))]
    books = [await gateway.books(user) for user in users]
    assert all(each.held_usd <= budget for each in held)
    assert [each.held for each in books] == [each.holds for each in books]
    audited = [await KeyReadStore(gateway.database).list(user, key_id=None, after=None, limit=500) for user in users]
    assert sum(map(len, audited)) == opened > 100
    assert await verify(database_url, lambda _: None) == 0


async def test_a_request_that_is_given_up_while_it_is_opened_is_closed_all_the_same(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, is_writing, real = asyncio.Event(), asyncio.Event(), gateway.store.open

    async def slow(batch: Any) -> Any:
        is_writing.set()
        await may_go_on.wait()
        return await real(batch)

    monkeypatch.setattr(gateway.store, "open", slow)
    requests = OpenRequests(gateway.store, lasts=LASTS)
    await requests.start()
    made = plan()
    opening = asyncio.create_task(requests.open(made))
    await is_writing.wait()
    opening.cancel()
    closing = asyncio.create_task(requests.close([made.decision_id]))
    await asyncio.wait({opening})
    assert opening.cancelled()
    may_go_on.set()
    await closing
    await requests.stop()
    assert (await gateway.books(made.user_id)).open == 0
