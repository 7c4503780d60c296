"""How soon a server is ready, where that time goes, and how much memory it has then."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from bench.rounds import quantile

if TYPE_CHECKING:
    from bench.rounds import Figures
    from bench.scale_world import World

IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")
PACKAGES = (
    "asyncpg", "cryptography", "google", "grpc", "jwt", "llmrouter", "llmrouter_server", "prometheus_client", "uvloop",
)  # fmt: skip


async def start(world: World, database: str, *, times: int) -> dict[str, Figures]:
    """Start servers one after another, of one worker and of two."""
    await world.make_database(database)
    found: dict[str, Figures] = {}
    for workers in (1, 2):
        ready, resident = [], []
        for _ in range(times):
            async with world.server(database, workers=workers, pinned=False) as server:
                ready.append(server.ready_s)
                await asyncio.sleep(0.5)  # two workers are there as soon as the first one listens
                resident.append(max(server.resident_mb))
        found[f"{workers} workers"] = {
            "ready_s": quantile(ready, 0.5),
            "slowest_s": max(ready),
            "rss_mb": quantile(resident, 0.5),
        }
    return found | {"imports": await imports()}


async def imports() -> Figures:
    """Return the milliseconds that importing the server takes, by package: each one's own modules alone."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-c", "import llmrouter_server.app"), stderr=subprocess.PIPE
    )
    _, told = await process.communicate()
    taken: dict[str, float] = dict.fromkeys((*PACKAGES, "all others"), 0.0)
    for line in told.decode().splitlines():
        if found := IMPORTED.match(line):
            package = found[4].partition(".")[0]
            taken[package if package in taken else "all others"] += int(found[1]) / 1e3
    if process.returncode != 0 or not taken["llmrouter_server"]:
        raise RuntimeError("the server cannot be imported")
    return taken | {"all": sum(taken.values())}
