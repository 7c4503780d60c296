"""The cost of Envoy's parts, for a moment: each can be left out, and the answers stay right. Nothing is timed."""

from __future__ import annotations

import pytest

from bench.envoy_edits import AGAIN, OURS
from bench.envoy_parts import DOORS, PLAIN, Door, measure, place
from bench.envoy_report import markdown
from bench.machine import machine
from bench.run import ROOT
from llmrouter_server.runtime.local_process import is_alive


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
async def test_each_part_can_be_left_out_and_costs_something(door: Door) -> None:
    async with place([door], lambda _: True, {}) as made:
        await measure(made, 1, 0.02)
        found = {each.name: each.us for each in made.running}
        pids = [each.envoy.pid for each in made.running]
    assert list(found) == [OURS, *(part.name for part in door.parts), AGAIN, PLAIN]
    assert all(us > 0 for [us] in found.values())
    assert not any(map(is_alive, pids))
    text = markdown(machine(ROOT) | {"rounds": 1, "seconds": 0.02, "cores": "shared", "load": 2.0}, {door.name: found})
    assert f"| {OURS} | " in text
    assert str(ROOT) not in text
