"""`make bench-envoy`: what each part of our Envoy's configuration costs a request, found by leaving it out."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import json
import os
import shutil
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
import yaml

from bench import http_load
from bench.envoy_edits import AGAIN, CHAT_PARTS, JSON_PARTS, OURS, Part
from bench.envoy_report import markdown
from bench.envoy_server import Behind, route_answer
from bench.machine import machine
from bench.places import NO_LIMIT_PER_S, Cores, _end, _python, on_core, port_of
from bench.plain_envoy import plain_config, transcoder_config
from bench.rounds import IN_FLIGHT
from conftest import make_open_folder
from llmrouter_server.cli import GRPC_POLLING
from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER, DevIdentity
from llmrouter_server.runtime.envoy_config import ENVOY_ENV, EdgeParameters, envoy_command, render
from llmrouter_server.runtime.local_ports import free_ports
from llmrouter_server.runtime.local_process import Child
from llmrouter_server.runtime.resources import resource_dir
from process_meter import cpu_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

ROOT = Path(__file__).parent.parent.parent
ROUNDS, SECONDS, WARM_UP_S = 12, 0.15, 0.3
HEALTHY_S = 30.0
SECRET = "a secret of the bench alone, of 32 bytes or more"
PLAIN = "a plain Envoy"


@dataclass(frozen=True, slots=True)
class Door:
    """One of the two ways through Envoy."""

    name: str
    parts: Sequence[Part]
    path: str
    judge: str
    body: str = ""
    settles_s: float = 0.0
    """After the last answer; Envoy's reports go out every 0.05 s."""


DOORS = (
    Door("JSON", JSON_PARTS, "/api/v2/llm/route", "a route", '{"power_level":"ECO"}'),
    Door("chat", CHAT_PARTS, http_load.PATH, "the provider's bytes", settles_s=0.08),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """An Envoy that runs, and what each round found: its CPU microseconds a request."""

    door: Door
    name: str
    port: int
    envoy: Child
    us: list[float]


class Place:
    """Everything that the Envoys need, and they themselves."""

    def __init__(self, folder: Path, cores: Cores, cleanup: AsyncExitStack) -> None:
        self._folder, self._cores, self._cleanup = folder, cores, cleanup
        self._identity = DevIdentity.load_or_create(folder / "identity")
        self._ports = {"server": 0, "gateway": 0, "provider": 0}
        self.token = self._identity.mint()
        self.running: list[Measured] = []

    async def start(self) -> None:
        with on_core(self._cores.load):
            provider = await _python("bench.mock_provider")
        self._cleanup.push_async_callback(_end, provider)
        self._ports["provider"] = await port_of(provider)
        behind = Behind(base64.b64encode(route_answer()).decode(), self._ports["provider"], SECRET)
        with on_core(self._cores.system):
            server = await _python("bench.envoy_server", behind.to_json(), **dict([GRPC_POLLING]))
        self._cleanup.push_async_callback(_end, server)
        self._ports |= {"server": await port_of(server), "gateway": await port_of(server)}

    def ours(self, envoy_dir: Path, part: Part, port: int) -> str:
        """Return our configuration without the part."""
        number = len(self.running)
        parameters = EdgeParameters(
            jwks=str(self._identity.jwks_file),
            issuer=ISSUER,
            audience=AUDIENCE,
            listen_address=f"127.0.0.1:{port}",
            server_address=f"127.0.0.1:{self._ports['server']}",
            gateway_address=f"127.0.0.1:{self._ports['gateway']}",
            gateway_secret=SECRET,
            admin_socket=self._folder / f"{number}.sock",
            access_log=self._folder / f"{number}.access",
            journal=self._folder / f"{number}.journal",
            user_requests_per_s=NO_LIMIT_PER_S,
            global_requests_per_s=NO_LIMIT_PER_S,
            envoy_dir=envoy_dir,
        )
        config = json.loads(json.dumps(yaml.safe_load(render(parameters))))  # so that nothing is in it twice
        for cluster in config["static_resources"]["clusters"]:
            for check in cluster.get("health_checks", ()):  # pass over a stand-in that stands still for a while
                check |= {"timeout": "10s", "unhealthy_threshold": 5}
        part.leave_out(config)
        return json.dumps(config)

    def plain(self, door: Door, envoy_dir: Path, port: int) -> str:
        if door.name == "chat":
            return plain_config(port, self._ports["provider"])
        return transcoder_config(port, self._ports["server"], envoy_dir / "llmrouter.binpb")

    async def add(self, door: Door, name: str, config: Callable[[int], str], port: int) -> None:
        """Start an Envoy, on the core that this is called on."""
        envoy = Child(f"Envoy without {name}", self._folder / f"{len(self.running)}.log")
        file = envoy.log.with_suffix(".yaml")
        file.write_text(config(port), encoding="utf-8")
        await envoy.start(envoy_command(file), env={"PATH": os.environ.get("PATH", "")} | ENVOY_ENV)
        self._cleanup.push_async_callback(envoy.stop)
        self.running.append(Measured(door, name, port, envoy, []))

    async def until_right(self, measured: Measured) -> None:
        """Return when it answers rightly."""
        patience = time.monotonic() + HEALTHY_S
        while True:
            try:
                await self.ask(measured, 0.01)
            except (OSError, ValueError) as wrong:  # at first it does not listen, or does not know who is behind it
                if time.monotonic() > patience:
                    raise RuntimeError(f"without {measured.name}: {wrong}") from wrong
                await asyncio.sleep(0.05)
            else:
                return

    async def ask(self, measured: Measured, seconds: float) -> float:
        """Ask for so long; return the CPU microseconds that a request cost this Envoy. ValueError: a wrong answer."""
        door = measured.door
        load = http_load.Load(
            port=measured.port,
            tokens=[self.token],
            connections=IN_FLIGHT,
            seconds=seconds,
            path=door.path,
            body=door.body,
            judge=door.judge,
        )
        if not measured.envoy.is_running:
            raise RuntimeError("\n".join([f"{measured.envoy.name} ended", *measured.envoy.last_lines()]))
        before = cpu_s(measured.envoy.pid)
        answers = (await http_load.ask(load))["answers"]
        assert isinstance(answers, int)
        await asyncio.sleep(door.settles_s)
        return (cpu_s(measured.envoy.pid) - before) / answers * 1e6


@contextlib.asynccontextmanager
async def place(
    doors: Sequence[Door], wanted: Callable[[str], bool], others: Mapping[str, Path]
) -> AsyncIterator[Place]:
    """Run our Envoy, those without a part, and a plain one, for each door."""
    cores, folder, envoy_dir = Cores.of_this_machine(), make_open_folder(), resource_dir("envoy")
    try:
        async with AsyncExitStack() as cleanup:
            made = Place(folder, cores, cleanup)
            await made.start()
            whole = Part(OURS, lambda _: None)
            planned: list[tuple[Door, str, Callable[[int], str]]] = []
            for door in doors:
                parts = [part for part in door.parts if wanted(part.name)]
                made_of = [(part.name, envoy_dir, part) for part in (whole, *parts, replace(whole, name=AGAIN))]
                made_of += [(name, other, whole) for name, other in others.items()]
                planned += [(door, name, functools.partial(made.ours, other, part)) for name, other, part in made_of]
                planned.append((door, PLAIN, functools.partial(made.plain, door, envoy_dir)))
            with on_core(cores.system):
                for each, port in zip(planned, free_ports(len(planned)), strict=True):
                    await made.add(*each, port)
            for measured in made.running:
                await made.until_right(measured)
            with on_core(cores.load):
                yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(made: Place, rounds: int, seconds: float) -> None:
    """Ask all of them in turn, every other time in reverse."""
    for each in made.running:
        await made.ask(each, min(seconds, WARM_UP_S))
    for number in range(rounds):
        for each in reversed(made.running) if number % 2 else made.running:
            each.us.append(await made.ask(each, seconds))


async def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-envoy", description=__doc__)
    parser.add_argument("--doors", default="JSON,chat", help="which ways through Envoy (default: JSON,chat)")
    parser.add_argument("--parts", help="only those whose names contain one of these words, separated by commas")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"in which all take turns (default: {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each turn (default: {SECONDS:g})")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=FOLDER", help="another envoy/ beside it")
    parser.add_argument("--markdown", type=Path, help="write the report there (default: print it)")
    chosen = parser.parse_args()
    doors = [door for door in DOORS if door.name in chosen.doors.split(",")]
    words = chosen.parts.split(",") if chosen.parts else [""]
    others = {name: Path(folder) for name, _, folder in (each.partition("=") for each in chosen.beside)}
    async with place(doors, lambda name: any(word in name for word in words), others) as made:
        await measure(made, chosen.rounds, chosen.seconds)
        found = {door.name: {each.name: each.us for each in made.running if each.door is door} for door in doors}
    about = machine(ROOT) | {
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "cores": Cores.of_this_machine().told,
        "load": os.getloadavg()[0],
    }
    text = markdown(about, found)
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
