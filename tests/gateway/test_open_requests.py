"""Chat requests are noted before they are made, and how many a user may have at once."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from gateway_samples import LASTS, NOW, Gateway, candidate, plan
from llmrouter_server import errors
from llmrouter_server.gateway.store import OpenRequests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.gateway.plan import Plan

OVER = NOW + LASTS


async def opened(gateway: Gateway, plans: Sequence[Plan]) -> list[str]:
    """Open these in one batch, and return how each fared."""
    outcomes = await gateway.store.open([(each, each.decided_at + LASTS) for each in plans])
    return ["opened" if outcome is None else outcome.reason for outcome in outcomes]


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
    assert outcomes.count(None) == 3
    assert {type(outcome) for outcome in outcomes} == {type(None), errors.DomainError}
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
    assert (outcomes[0].reason, outcomes[1]) == ("UNAVAILABLE", None)


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
