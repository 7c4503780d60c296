"""`make bench-server`: where the server's CPU and Postgres' time go; writes docs/server-cost.md.

A sampler looks at the server a few hundred times a second while a load runs, and counts in which file it finds it. The
server has a core for itself: on a shared one, whom it wakes takes the core, and that looks like work of the waker.
Needs the right to look into another process: root, or kernel.yama.ptrace_scope = 0.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import rounds
from bench.echo_server import INTAKE
from bench.machine import machine
from bench.places import bench, echo
from up_process import children_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bench.places import Bench, Echo
    from bench.rounds import Figures

ROOT = Path(__file__).parent.parent.parent
SAMPLES_PER_S = 400
BEGIN_S = 0.5
"""How long a load runs before the sampler is there."""
MAIN = "MainThread"
FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^():]+)(?::\d+)?\)")
LIBRARIES = {
    "asyncpg/": "asyncpg",
    "grpc/": "grpc.aio",
    "_cython/": "grpc.aio",
    "uvloop/": "event loop",
    "asyncio/": "event loop",
    "cryptography/": "cryptography",
    "prometheus_client/": "prometheus_client",
    "logging/": "logging",
}
"""Who a frame belongs to, by a part of its file's path. What C code does counts for the Python frame that called it."""

Parts = dict[str, float]
"""CPU microseconds a call, by part."""

MOST_STATEMENTS, STATEMENT_CHARS = 20, 90
STATEMENTS = """
select toplevel, query, calls, total_exec_time * 1000 as us from pg_stat_statements
where query !~* 'pg_stat_statements' order by total_exec_time desc limit $1"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement took, for each call of the load."""

    text: str
    is_inner: bool
    """Whether a function runs it, whose time includes it."""
    times: float
    us: float
    """By the clock: what it waited for is in it."""


def part_of(stack: str) -> str:
    """Return the innermost room of the server, or library that does work of its own, that the sample was in."""
    for frame in reversed(stack.split(";")):
        found = FRAME.fullmatch(frame)
        if found is None:
            continue
        file = found["file"].replace("\\", "/")
        for place, library in LIBRARIES.items():
            if place in file:
                return library
        if "llmrouter_server/" in file:
            return file.partition("llmrouter_server/")[2]
        if "llmrouter/v2" in file or "bench/" in file:
            return "messages and stubs"
    return "others"


def samples_of(raw: str) -> Counter[str]:
    """Count the samples of the main thread by part. One line of `raw` is a stack, outermost first, and a number."""
    counted: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        if MAIN in stack.partition(";")[0]:
            counted[part_of(stack)] += int(number)
    return counted


def threads_s(pid: int) -> dict[int, float]:
    """Return the CPU seconds of each thread of a process."""
    used = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            used[int(thread.name)] = int((thread / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return used


async def sampled(pid: int, seconds: float, load: Callable[[], Awaitable[Figures]]) -> Parts:
    """Run a load of so many seconds, and return what the process used for a call, by part."""
    before = threads_s(pid)
    running = asyncio.ensure_future(load())
    await asyncio.sleep(BEGIN_S)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stacks")
        sampler = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("py-spy")), "record", "--threads", "--format=raw", "--gil",
            f"--rate={SAMPLES_PER_S}", f"--duration={max(1, round(seconds - 2 * BEGIN_S))}", f"--output={file}",
            f"--pid={pid}", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await sampler.communicate()
        figures = await running
        if sampler.returncode != 0:
            raise RuntimeError(f"the server could not be sampled: {said.decode(errors='replace').strip()}")
        counted = samples_of(file.read_text(encoding="utf-8"))
    after = threads_s(pid)
    calls, all_samples = figures["answers"], counted.total()
    main_us = (after[pid] - before[pid]) / calls * 1e6
    parts = {part: main_us * number / all_samples for part, number in counted.items()}
    others_s = sum(used - before.get(thread, 0.0) for thread, used in after.items() if thread != pid)
    return parts | {"gRPC's own threads": others_s / calls * 1e6}


def alone(pid: int, made: Bench) -> None:
    """Give the process the systems' core, and everything else the load's."""
    system, load = made.cores.system, made.cores.load
    if system is None or load is None:
        raise RuntimeError("this takes two cores")
    postmaster = made.stack.postgres.server.pid
    for other in (made.stack.envoy.pid, made.plain.pid, postmaster, *children_of(postmaster)):
        _pin(other, load)
    _pin(pid, system)


def _pin(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread.name), {core})


async def count_statements(made: Bench) -> None:
    """Have Postgres count the time of its statements, for which it starts anew."""
    async with made.connection() as connection:
        await connection.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
    await made.stack.postgres.stop()
    await made.stack.postgres.start()
    async with made.connection() as connection:
        await connection.execute("create extension pg_stat_statements")
        await connection.execute("alter system set pg_stat_statements.track = 'all'")
        await connection.execute("select pg_reload_conf()")


async def statements_of(made: Bench, load: Callable[[], Awaitable[Figures]]) -> list[Statement]:
    """Run a load, and return its dearest statements."""
    async with made.connection() as connection:
        await connection.execute("select pg_stat_statements_reset()")
        calls = (await load())["answers"]
        rows = await connection.fetch(STATEMENTS, MOST_STATEMENTS)
    return [
        Statement(" ".join(row["query"].split()), not row["toplevel"], row["calls"] / calls, row["us"] / calls)
        for row in rows
    ]


async def measure(
    seconds: float, say: Callable[[str], object] = lambda _: None
) -> tuple[dict[str, Parts], list[Statement]]:
    """Return the parts of each load, and the statements of chat requests."""
    async with bench() as made, contextlib.AsyncExitStack() as cleanup:
        await count_statements(made)
        _, answer = await rounds.route(made, seconds=min(1.0, seconds))
        told = base64.b64encode(answer).decode()
        other: Echo = await cleanup.enter_async_context(echo(made, told, INTAKE))
        server = made.stack.server.pid
        alone(server, made)

        async def routed(*, is_new: bool) -> Figures:
            return (await rounds.route(made, seconds=seconds, is_new=is_new))[0]

        loads: Mapping[str, tuple[int, Callable[[], Awaitable[Figures]]]] = {
            "echo": (other.server_pid, lambda: rounds.echo(made, other, answer, seconds=seconds)),
            "Route, remembered": (server, lambda: routed(is_new=False)),
            "Route, new": (server, lambda: routed(is_new=True)),
            "chat": (server, lambda: rounds.requests(made, is_ours=True, seconds=seconds, per_s=0)),
        }
        found = {}
        for name, (pid, load) in loads.items():
            found[name] = await sampled(pid, seconds, load)
            say(f"{name}: {sum(found[name].values()):.0f} µs")
        return found, await statements_of(made, loads["chat"][1])


def markdown(
    found: Mapping[str, Parts], statements: Sequence[Statement], about: Mapping[str, object], seconds: float
) -> str:
    """Return the report: for each load the parts, the dearest first."""
    lines = [
        "# Where the server's CPU and Postgres' time go",
        "",
        "Made by `make bench-server`. CPU microseconds a call by file of the server (`server/llmrouter_server`) and",
        f"by library: shares of {SAMPLES_PER_S} samples a second, over {seconds:g} s, of the Python thread's CPU. C",
        "code counts for the Python that called it: protobuf for whoever reads messages, Fernet for the cipher,",
        "the compiled part of grpc.aio for the event loop. The server had a core for itself, Envoy, Postgres,",
        "load and provider the other one; in `performance.md` all of ours share one: compare shares, not figures.",
        "*Route, new* has an estimate of tokens in each call that no other had. The echo's process is set up as our",
        "server's, and takes calls in as it does. Envoy's costs are in `envoy-cost.md`.",
        "",
        f"- {about['date']}, commit {about['commit']}",
        f"- {about['cpus']} CPUs, {about['cpu']}, {about['memory_gib']} GiB, {about['system']}",
        "",
        "| µs a call | " + " | ".join(found) + " |",
        "|---|" + "---|" * len(found),
        "| all | " + " | ".join(f"{sum(parts.values()):,.0f}" for parts in found.values()) + " |",
    ]
    names = {name for parts in found.values() for name in parts}
    for name in sorted(names, key=lambda name: -max(parts.get(name, 0.0) for parts in found.values())):
        figures = [parts.get(name, 0.0) for parts in found.values()]
        if max(figures) >= 1.0:
            lines.append(f"| {name} | " + " | ".join(f"{each:,.0f}" if each >= 0.5 else "" for each in figures) + " |")
    lines += [
        "",
        "## Postgres, for a chat request",
        "",
        "The dearest statements by pg_stat_statements, which costs some itself: their time by the clock, waits for the",
        "core included, without parsing, planning and the commit. What a function runs (→) is in its time too.",
        "",
        "| statement | times a request | µs a request |",
        "|---|---|---|",
        *(
            f"| {'→ ' if each.is_inner else ''}`{each.text[:STATEMENT_CHARS].replace('|', chr(92) + '|')}` "
            f"| {each.times:.3f} | {each.us:,.0f} |"
            for each in statements
            if each.us >= 1.0
        ),
    ]
    return "\n".join([*lines, ""])


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-server", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "server-cost.md")
    chosen = parser.parse_args()
    found, statements = await measure(chosen.seconds, say=lambda line: sys.stdout.write(f"{line}\n"))
    chosen.markdown.write_text(markdown(found, statements, machine(ROOT), chosen.seconds), encoding="utf-8")
    sys.stdout.write(chosen.markdown.read_text(encoding="utf-8"))


if __name__ == "__main__":
    asyncio.run(main())
