"""`make bench-scale`: measure how cost grows with users, models, rows and replicas, and write the report.

Each part can be measured alone; the report is made of what was measured last of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine import machine
from bench.run import ROOT
from bench.scale_catalogue import catalogue
from bench.scale_data import load_usage
from bench.scale_recording import recording
from bench.scale_report import markdown
from bench.scale_start import start
from bench.scale_usage import usage
from bench.scale_users import load_users, users
from bench.scale_world import POSTGRES_SETTINGS, World
from conftest import make_open_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.rounds import Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    users: int = 1_000_000
    cached: int = 30_000
    """Users that a process may remember; fewer than the default, so that it is full within a minute."""
    steps: tuple[int, ...] = (10_000, 20_000, 30_000, 60_000, 90_000)
    calls: int = 2_000
    providers: int = 100
    models: int = 100
    """Of each provider."""
    changes: int = 5
    few_rows: int = 5_000_000
    many_rows: int = 50_000_000
    usage_calls: int = 100
    rounds: int = 3
    seconds: float = 4.0
    starts: int = 5
    workers: tuple[int, ...] = (1, 2)


async def measure_users(world: World, sizes: Sizes, say: Callable[[str], object]) -> dict[str, Figures]:
    await load_users(world, "users", sizes.users, say)
    return await users(
        world,
        "users",
        sizes.users,
        cached=sizes.cached,
        steps=sizes.steps,
        calls=sizes.calls,
        workers=sizes.workers,
    )


async def measure_catalogue(world: World, sizes: Sizes, _say: Callable[[str], object]) -> dict[str, Figures]:
    return await catalogue(world, "catalogue", sizes.providers, sizes.models, changes=sizes.changes)


async def measure_usage(world: World, sizes: Sizes, say: Callable[[str], object]) -> dict[str, Figures]:
    await load_usage(world, "few_rows", sizes.few_rows, say)
    await load_usage(world, "many_rows", sizes.many_rows, say)
    return await usage(world, {"few": "few_rows", "many": "many_rows"}, rounds=sizes.rounds, calls=sizes.usage_calls)


async def measure_recording(world: World, sizes: Sizes, _say: Callable[[str], object]) -> dict[str, Figures]:
    await world.drop_database("recording")
    return await recording(world, "recording", rounds=sizes.rounds, seconds=sizes.seconds, workers=sizes.workers)


async def measure_start(world: World, sizes: Sizes, _say: Callable[[str], object]) -> dict[str, Figures]:
    return await start(world, "start", times=sizes.starts)


PARTS: dict[str, Callable[[World, Sizes, Callable[[str], object]], Awaitable[dict[str, Figures]]]] = {
    "start": measure_start,
    "recording": measure_recording,
    "catalogue": measure_catalogue,
    "users": measure_users,
    "usage": measure_usage,
}


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="keeps the data there for the next time; else it is removed")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "scale.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "scale.md")
    chosen = parser.parse_args()
    sizes, folder = Sizes(), chosen.folder or make_open_folder()
    found = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
    try:
        async with World(folder) as world:
            for name in chosen.parts:
                figures = await PARTS[name](world, sizes, lambda line: sys.stdout.write(f"{line}\n"))
                found[name] = {"about": machine(ROOT) | {"postgres": POSTGRES_SETTINGS}, "figures": figures}
                chosen.json.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
                sys.stdout.write(f"{name} is measured\n")
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    found = json.loads(chosen.json.read_text(encoding="utf-8"))  # in the same order, whichever parts are new
    performance = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))
    chosen.markdown.write_text(markdown(found, performance["summary"]["medians"]), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
