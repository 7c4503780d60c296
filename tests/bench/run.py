"""`make bench`: measure what the product costs beside the least that it could, and write the reports."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import rounds
from bench.echo_server import AS_IT_COMES, INTAKE, SAME
from bench.machine import machine
from bench.places import Cores, bench, echo, our_door, plain_door
from bench.report import markdown, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.places import Bench, Door, Echo
    from bench.rounds import Figures

ROOT = Path(__file__).parent.parent.parent
ROUNDS, SECONDS = 12, 1.6
IDLE_S, WARM_UP_S = 3.0, 1.0
MANY_MODELS = 500
ECHOES = {"echo": AS_IT_COMES, "echo, same set-up": SAME, "echo, same intake": INTAKE}

Round = dict[str, "Figures"]


@dataclass(frozen=True, slots=True)
class Others:
    """What ours is compared with."""

    answer: bytes
    """Of Route's; what the echoes say."""
    echoes: Mapping[str, Echo]
    """As they come, set up as our server's process, and taking calls in as it does."""
    our_plain_door: Door
    """A plain Envoy before our server."""
    echo_behind_ours: Door
    """Our Envoy before the echo that is set up as our server's process."""


async def measure(
    number: int, seconds: float, models: int = MANY_MODELS, say: Callable[[str], object] = lambda _: None
) -> list[Round]:
    """Measure so many rounds, each figure for so many seconds, at last with so many models.

    RuntimeError, ValueError: an answer was wrong.
    """
    async with bench() as made, contextlib.AsyncExitStack() as cleanup:
        for is_ours in (True, False):
            await rounds.requests(made, is_ours=is_ours, seconds=min(seconds, WARM_UP_S), per_s=0)
        _, answer = await rounds.route(made, seconds=min(seconds, WARM_UP_S))
        told, stack = base64.b64encode(answer).decode(), made.stack
        echoes = {name: await cleanup.enter_async_context(echo(made, told, how)) for name, how in ECHOES.items()}
        same = echoes["echo, same set-up"]
        others = Others(
            answer,
            echoes,
            await cleanup.enter_async_context(plain_door(made, stack.ports.grpc, stack.server.pid)),
            await cleanup.enter_async_context(our_door(made, same.grpc_port, same.server_pid)),
        )
        idle = await rounds.idle(made, seconds=min(seconds, IDLE_S))
        done = []
        for each in range(number):
            done.append(await _round(made, seconds, idle, others, is_reversed=each % 2 == 1))
            say(f"round {each + 1} of {number}")
        known = await made.models()
        await made.grow(models)
        for each in range(number):
            grown = await _routes(made, seconds, others, is_reversed=each % 2 == 1)
            done[each] |= {f"{what}, grown": figures for what, figures in grown.items()}
            done[each]["models"] = {"at first": known, "grown": await made.models()}
            say(f"round {each + 1} of {number} with {models} models")
        return done


async def _round(made: Bench, seconds: float, idle: Figures, others: Others, *, is_reversed: bool) -> Round:
    """Measure everything once. Ours and the other in turn, and every other time in reverse."""
    done: Round = {}
    sides = [("ours", True), ("plain", False)]
    doors = [("route", None), ("route behind a plain Envoy", others.our_plain_door)]
    doors += [(name, each.door) for name, each in others.echoes.items()]
    doors.append(("echo, same set-up, behind our Envoy", others.echo_behind_ours))
    for name, is_ours in reversed(sides) if is_reversed else sides:
        done[f"saturated {name}"] = await rounds.requests(made, is_ours=is_ours, seconds=seconds, per_s=0)
        done[f"calm {name}"] = await rounds.requests(made, is_ours=is_ours, seconds=seconds, per_s=rounds.CALM_PER_S)
        done[f"streams {name}"] = await rounds.streams(made, is_ours=is_ours, seconds=seconds, idle=idle)
    done["decisions"] = await rounds.decisions(made, seconds=seconds)
    done |= await _routes(made, seconds, others, is_reversed=is_reversed)
    for name, door in reversed(doors) if is_reversed else doors:
        done[f"{name} in JSON"] = await rounds.in_json(made, door, seconds=seconds)
    return done


async def _routes(made: Bench, seconds: float, others: Others, *, is_reversed: bool) -> Round:
    done: Round = {}
    names = ("route", "route, new", *others.echoes)
    for name in reversed(names) if is_reversed else names:
        if name in others.echoes:
            done[name] = await rounds.echo(made, others.echoes[name], others.answer, seconds=seconds)
        else:
            done[name], _ = await rounds.route(made, seconds=seconds, is_new=name == "route, new")
    return done


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each figure in each round")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "performance.json")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "performance.md")
    chosen = parser.parse_args()
    measured = await measure(chosen.rounds, chosen.seconds, say=lambda line: sys.stdout.write(f"{line}\n"))
    about = machine(ROOT) | {"rounds": chosen.rounds, "seconds": chosen.seconds, "cores": Cores.of_this_machine().told}
    found = {"about": about, "summary": summary(measured), "rounds": measured}
    before = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else None
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    chosen.markdown.write_text(markdown(found, before), encoding="utf-8")
    sys.stdout.write(chosen.markdown.read_text(encoding="utf-8"))


if __name__ == "__main__":
    asyncio.run(main())
