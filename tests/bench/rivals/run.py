"""`make bench-rivals`: measure ours beside other gateways, each on the same core in its turn, and write the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine import machine
from bench.places import Cores, bench
from bench.rivals import gateways, measured
from bench.rivals.bifrost_gateway import Bifrost
from bench.rivals.litellm_proxy import LiteLlm
from bench.rivals.portkey_gateway import Portkey
from bench.rivals.report import markdown, summary
from bench.rivals.rival import UnavailableError
from bench.rivals.tensorzero_gateway import TensorZero
from conftest import make_open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.places import Bench
    from bench.rivals.gateways import Gateway
    from bench.rivals.rival import Rival
    from bench.rounds import Figures

ROOT = Path(__file__).parent.parent.parent.parent
CACHE = ROOT / ".llmrouter" / "rivals"
RIVALS: tuple[Rival, ...] = (LiteLlm(), Portkey(), TensorZero(), Bifrost())
ROUNDS, SECONDS = 3, 4.0
IDLE_S, WARM_UP_S = 3.0, 1.0

Round = dict[str, dict[str, "Figures"]]
"""What was measured, of whom, and its figures."""


@dataclass(slots=True)
class Measured:
    rounds: list[Round] = field(default_factory=list)
    start_s: dict[str, float] = field(default_factory=dict)
    idle: dict[str, dict[str, float]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Why, by name."""


async def measure(
    rivals: Sequence[Rival],
    number: int,
    seconds: float,
    cache: Path = CACHE,
    say: Callable[[str], object] = lambda _: None,
) -> Measured:
    """Measure so many rounds, each figure for so many seconds. RuntimeError, ValueError: an answer was wrong."""
    done, homes = Measured(), make_open_folder()
    installed: dict[str, Path] = {}
    for rival in rivals:
        try:
            installed[rival.name] = rival.install(cache, say)
        except UnavailableError as error:
            done.unavailable[rival.name] = f"not installed: {error}"
            say(f"{rival.name} is {done.unavailable[rival.name]}")
    try:
        async with bench() as made, AsyncExitStack() as cleanup:
            sides = [gateways.direct(made), gateways.plain(made), await gateways.ours(made)]
            for each in sides:
                await measured.requests(made, each, seconds=min(seconds, WARM_UP_S), per_s=0)
            for rival in rivals:
                if rival.name not in installed:
                    continue
                say(f"starting {rival.name} {rival.version} ...")
                home = homes / rival.name.replace(" ", "-").lower()
                try:
                    each = await cleanup.enter_async_context(gateways.running(rival, installed[rival.name], home, made))
                    await _warm_up(made, each, seconds)
                except UnavailableError as error:
                    done.unavailable[rival.name] = f"not started: {error}"
                except RuntimeError as error:
                    done.unavailable[rival.name] = f"started, and answered wrongly: {error}"
                else:
                    sides.append(each)
                    continue
                say(f"{rival.name} is {done.unavailable[rival.name]}")
            done.start_s = {each.name: each.start_s for each in sides}
            done.idle = await measured.idle(sides, seconds=min(seconds, IDLE_S))
            for each in range(number):
                turns = sides[::-1] if each % 2 else sides
                done.rounds.append(await _round(made, turns, seconds, done.idle))
                say(f"round {each + 1} of {number}")
    finally:
        shutil.rmtree(homes, ignore_errors=True)
    return done


async def _warm_up(made: Bench, each: Gateway, seconds: float) -> None:
    """Ask for everything once, for a moment. RuntimeError: an answer was wrong; the load wrote which."""
    seconds = min(seconds, WARM_UP_S)
    await measured.requests(made, each, seconds=seconds, per_s=0)
    await measured.streams(made, each, seconds=seconds / 2, idle=dict.fromkeys(each.parts(), 0.0))


async def _round(
    made: Bench, turns: Sequence[Gateway], seconds: float, idle: Mapping[str, Mapping[str, float]]
) -> Round:
    """Measure everything of each gateway once."""
    done: Round = {"saturated": {}, "calm": {}, "streams": {}, "memory": {}}
    calm_s = seconds * measured.CALM_LONGER
    for each in turns:
        done["saturated"][each.name] = await measured.requests(made, each, seconds=seconds, per_s=0)
        done["memory"][each.name] = {"mb": each.memory_bytes() / 1e6}
        done["calm"][each.name] = await measured.requests(made, each, seconds=calm_s, per_s=measured.CALM_PER_S)
        done["streams"][each.name] = await measured.streams(made, each, seconds=seconds, idle=idle[each.name])
    return done


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-rivals", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each figure in each round")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "rivals.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "rivals.md")
    chosen = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    done = await measure(RIVALS, chosen.rounds, chosen.seconds, say=say)
    about = machine(ROOT) | {"rounds": chosen.rounds, "seconds": chosen.seconds, "cores": Cores.of_this_machine().told}
    found = report_of(about, RIVALS, done)
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    chosen.markdown.write_text(markdown(found), encoding="utf-8")
    sys.stdout.write(chosen.markdown.read_text(encoding="utf-8"))


def report_of(about: Mapping[str, object], rivals: Sequence[Rival], done: Measured) -> dict[str, object]:
    """Return all that the report is made of."""
    return {
        "about": about,
        "rivals": {each.name: {"version": each.version, "on": each.on, "off": each.off} for each in rivals},
        "unavailable": done.unavailable,
        "start_s": done.start_s,
        "idle": done.idle,
        "summary": summary(done.rounds),
        "rounds": done.rounds,
    }


if __name__ == "__main__":
    asyncio.run(main())
