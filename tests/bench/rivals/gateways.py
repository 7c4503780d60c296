"""The gateways that are compared, as they run: ours, the rivals, plain Envoy, and nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import h11

from bench import http_load
from bench.answers import means_the_same
from bench.places import on_core
from bench.rivals.install import last_words
from bench.rivals.rival import Target, UnavailableError
from gateway.chat_client import send
from llmrouter_server.runtime.local_ports import free_ports
from llmrouter_server.runtime.local_process import Child
from process_meter import KIB, cpu_s
from up_process import children_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bench.places import Bench
    from bench.rivals.rival import Launch, Rival

OURS, PLAIN, DIRECT = "ours", "plain Envoy", "no gateway"
STARTED_S, STOPPED_S = 120.0, 5.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One that runs, and is asked; `parts` are the processes of each of its parts, all of them pinned to one core."""

    name: str
    target: Target
    parts: Callable[[], dict[str, Sequence[int]]]
    start_s: float = 0.0
    """From the start to the first right answer."""
    is_ours: bool = False

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time that each part has used, in seconds."""
        used = {}
        for part, pids in self.parts().items():
            used[part] = 0.0
            for pid in pids:
                with contextlib.suppress(OSError):  # it has ended
                    used[part] += cpu_s(pid)
        return used

    def memory_bytes(self) -> int:
        """Return how much memory all of it has, each shared page divided among those that share it."""
        total = 0
        for pid in (pid for pids in self.parts().values() for pid in pids):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                total += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0]) * KIB
        return total


def direct(bench: Bench) -> Gateway:
    """Return the mock provider itself: what the load measures without anything between."""
    return Gateway(name=DIRECT, target=Target(port=bench.provider_port), parts=dict)


def plain(bench: Bench) -> Gateway:
    """Return Envoy as a plain proxy."""
    return Gateway(name=PLAIN, target=Target(port=bench.plain_port), parts=lambda: {"all": [bench.plain.pid]})


async def ours(bench: Bench) -> Gateway:
    """Stop the product and start it again, on the data that it has; return it."""
    stack = bench.stack
    await stack.stop()
    began = time.perf_counter()
    with on_core(bench.cores.system):
        await stack.start()
    target = Target(port=stack.ports.http, tokens=bench.tokens)

    def parts() -> dict[str, Sequence[int]]:
        postmaster = stack.postgres.server.pid
        postgres = [postmaster, *children_of(postmaster)]
        return {"envoy": [stack.envoy.pid], "server": [stack.server.pid], "postgres": postgres}

    await _until_right(target, lambda: stack.server.is_running)
    start_s = time.perf_counter() - began
    await refuse_wrong_tokens(OURS, target)
    return Gateway(name=OURS, target=target, parts=parts, start_s=start_s, is_ours=True)


@asynccontextmanager
async def running(rival: Rival, installed: Path, home: Path, bench: Bench) -> AsyncIterator[Gateway]:
    """Run a rival until the end of the block. UnavailableError: it does not start, or does not answer as it should."""
    home.mkdir()
    launch = rival.launch(installed, home, free_ports(1)[0], bench.provider_port)
    child = Child(rival.name, home / "rival.log")
    began = time.perf_counter()
    with on_core(bench.cores.system):
        await child.start(launch.command, env=launch.env)
    try:
        try:
            target = await _found(launch, child)
            await _until_right(target, lambda: child.is_running)
            start_s = time.perf_counter() - began
            if rival.asks_who:
                await refuse_wrong_tokens(rival.name, target)
        except (UnavailableError, TimeoutError) as error:
            why = str(error) or f"no right answer within {STARTED_S:g} s"
            raise UnavailableError(f"{why}; it wrote: {last_words(_written(child))}") from None
        yield Gateway(name=rival.name, target=target, parts=lambda: {"all": _tree(child.pid)}, start_s=start_s)
    finally:
        below = _tree(child.pid)[1:] if child.is_running else []
        await child.stop((signal.SIGTERM, STOPPED_S))
        for pid in below:  # what it started and left
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


async def refuse_wrong_tokens(name: str, target: Target) -> None:
    """Make sure that a gateway which is said to ask who calls does; UnavailableError when it does not."""
    status, _ = await _ask(replace(target, tokens=["sk-bf-wrong"]))
    if status not in {400, 401, 403}:
        raise UnavailableError(f"{name} answers a wrong token with status {status}")


async def _found(launch: Launch, child: Child) -> Target:
    if launch.port_line is None:
        return launch.target
    async with asyncio.timeout(STARTED_S):
        while (found := launch.port_line.search(_written(child))) is None:
            if not child.is_running:
                raise UnavailableError("it ended while it started")
            await asyncio.sleep(POLL_S)
    return replace(launch.target, port=int(found[1]))


async def _until_right(target: Target, is_running: Callable[[], bool]) -> None:
    """Wait for the first right answer."""
    async with asyncio.timeout(STARTED_S):
        while True:
            with contextlib.suppress(OSError, h11.ProtocolError, json.JSONDecodeError, KeyError):
                status, body = await _ask(target)
                if status == 200 and means_the_same(body):
                    return
            if not is_running():
                raise UnavailableError("it ended while it started")
            await asyncio.sleep(POLL_S)


async def _ask(target: Target) -> tuple[int, bytes]:
    body = http_load.Load(port=target.port, tokens=target.tokens, connections=1, model=target.model).chat()
    headers = {"content-type": "application/json", **target.headers}
    if target.tokens:
        headers["authorization"] = f"Bearer {target.tokens[0]}"
    reply = await send(target.port, "POST", target.path, headers, body)
    return reply.status, reply.body


def _tree(pid: int) -> list[int]:
    """Return a process and all that it has started, that one first."""
    tree = [pid]
    for each in tree:
        with contextlib.suppress(OSError):
            tree += children_of(each)
    return tree


def _written(child: Child) -> str:
    return child.log.read_text(encoding="utf-8", errors="replace")
