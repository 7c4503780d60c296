"""What is measured of each gateway, in the same way for all of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench import http_load
from bench.mock_provider import TICK_S
from bench.rounds import chunks_so_far, figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.places import Bench
    from bench.rivals.gateways import Gateway
    from bench.rounds import Figures

IN_FLIGHT, CALM_CONNECTIONS, STREAMS = 32, 16, 10
CALM_PER_S = 20.0
"""The slowest of them is half busy with so many requests a second."""
CALM_LONGER = 2
"""Times as long as the other figures, since there are so few."""
SETTLING_S = 2.0
MEANING = "the provider's meaning"


async def requests(bench: Bench, gateway: Gateway, *, seconds: float, per_s: float) -> Figures:
    """Ask for answers in one piece: per_s of them a second, or, when it is 0, as many as can be."""
    load = _load(gateway, connections=CALM_CONNECTIONS if per_s else IN_FLIGHT, seconds=seconds, per_s=per_s)
    recorded = await bench.recorded() if gateway.is_ours else 0
    before = gateway.cpu_s()
    result = await bench.load("http_load", load)
    if gateway.is_ours:
        await bench.until_settled()
    after = gateway.cpu_s()
    if gateway.is_ours and await bench.recorded() - recorded != result["answers"]:
        raise RuntimeError("not every answer is recorded")
    return figures(result, before, after, list(before))


async def streams(bench: Bench, gateway: Gateway, *, seconds: float, idle: Mapping[str, float]) -> Figures:
    """Measure in the middle of streams; idle: CPU seconds a second of each part when nobody asks for anything."""
    settling_s = min(SETTLING_S, 2 * seconds)
    chunks = round((seconds + 2 * settling_s + 0.5) / TICK_S)
    process = await bench.begin("http_load", _load(gateway, connections=STREAMS, chunks=chunks))
    while await chunks_so_far(process) < STREAMS:
        await asyncio.sleep(0.05)
    await asyncio.sleep(settling_s)
    before, chunks_before, began = gateway.cpu_s(), await chunks_so_far(process), time.perf_counter()
    await asyncio.sleep(seconds)
    after, came, took = gateway.cpu_s(), await chunks_so_far(process) - chunks_before, time.perf_counter() - began
    printed, _ = await process.communicate()
    bench.result(process, printed)
    if gateway.is_ours:
        await bench.until_settled()
    if not came:  # the streams were over before: something stood still
        return await streams(bench, gateway, seconds=seconds, idle=idle)
    used = {part: after[part] - before[part] - idle[part] * took for part in before}
    return {
        "chunks_per_s": came / took,
        "us_a_chunk": sum(used.values()) / came * 1e6,
        **{f"{part}_us_a_chunk": used[part] / came * 1e6 for part in used},
    }


async def idle(gateways: Sequence[Gateway], *, seconds: float) -> dict[str, dict[str, float]]:
    """Return the CPU seconds that each part of each gateway uses in a second when nobody asks for anything."""
    before, began = {each.name: each.cpu_s() for each in gateways}, time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    return {
        each.name: {part: (used - before[each.name][part]) / took for part, used in each.cpu_s().items()}
        for each in gateways
    }


def _load(
    gateway: Gateway, *, connections: int, seconds: float = 0, per_s: float = 0, chunks: int = 0
) -> http_load.Load:
    target = gateway.target
    return http_load.Load(
        port=target.port,
        path=target.path,
        headers=target.headers,
        model=target.model,
        tokens=target.tokens,
        connections=connections,
        seconds=seconds,
        per_s=per_s,
        chunks=chunks,
        judge=MEANING,
    )
