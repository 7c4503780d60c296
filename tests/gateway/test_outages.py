from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from gateway.chat_stack import PRICE_IN, PRICE_OUT, REST_S
from gateway.failover_rows import JITTER_S
from gateway.outages import AT_ONCE, LEFT_ALONE, SCENARIOS, SERVED, Player

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.chat_stack import ChatStack
    from gateway.outages import Course

CLOCK_S = 0.002
"""Decisions tell their time in whole milliseconds."""
ANSWER_USD = (19 * PRICE_IN + 10 * PRICE_OUT) / 1_000_000


@pytest.fixture(scope="module")
async def outages(request: pytest.FixtureRequest, chat: ChatStack) -> AsyncIterator[Mapping[str, asyncio.Task[Course]]]:
    """Those that are to be tested. They are waiting most of the time, so they go on side by side."""
    names = [
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "outages" in item.fixturenames
    ]
    worlds = await chat.new_worlds(len(names))
    tasks = {
        name: asyncio.create_task(Player(chat, world, SCENARIOS[name][1]).play(SCENARIOS[name][0]), name=name)
        for name, world in zip(names, worlds, strict=True)
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_provider_that_is_down_is_left_alone_probed_and_trusted_again(
    name: str, outages: Mapping[str, asyncio.Task[Course]]
) -> None:
    course, (outage, _) = await outages[name], SCENARIOS[name]
    assert [wave.fates for wave in course.at_first] == [[outage.lost]] * len(course.at_first)
    assert any(before for before, _ in course.probes)  # not each: the machine may have slept through a whole rest
    for before, _ in course.probes:
        assert [wave.fates for wave in before] == [[LEFT_ALONE] * AT_ONCE] * len(before)
    for (_, wave), probe in zip(course.probes, (outage.lost, SERVED, SERVED, SERVED), strict=True):
        (number,) = wave.tried
        assert wave.fates[number] == probe
        assert [fate for fate in wave.fates if fate != probe] == [LEFT_ALONE] * (AT_ONCE - 1)
    assert course.at_last.fates == [SERVED] * AT_ONCE

    waves = [*course.at_first, *(wave for _, wave in course.probes)]
    tried_at = [wave.decided_at[wave.tried[0]] for wave in waves[len(course.at_first) - 1 :]]
    assert all(after - before >= REST_S - CLOCK_S for before, after in pairwise(tried_at))
    for wave in waves:
        assert all(after - before >= JITTER_S for before, after in pairwise(wave.asked_at))
    answered = {each.decision_id for each in course.recorded}
    assert sum((each.cost_usd for each in course.recorded), Decimal()) == ANSWER_USD * len(answered)
