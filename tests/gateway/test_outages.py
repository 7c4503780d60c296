from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from gateway.chat_stack import PRICE_IN, PRICE_OUT, REST_S
from gateway.failover_rows import JITTER_S
from gateway.outages import AT_ONCE, LEFT_ALONE, SCENARIOS, SERVED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from gateway.outages import Course

CLOCK_S = 0.002
"""Decisions tell their time in whole milliseconds."""
ANSWER_USD = (19 * PRICE_IN + 10 * PRICE_OUT) / 1_000_000


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_provider_that_is_down_is_left_alone_probed_and_trusted_again(
    name: str, outages: Mapping[str, asyncio.Task[Course]]
) -> None:
    course, (outage, _) = await outages[name], SCENARIOS[name]
    assert [wave.fates for wave in course.at_first] == [[outage.lost]] * len(course.at_first)
    for before, _ in course.probes:
        assert before
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
