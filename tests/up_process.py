"""`llmrouter up` as somebody starts it in a terminal: a process, its lines, and the processes it started."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llmrouter_server.runtime.local_process import command_of, is_alive

if TYPE_CHECKING:
    from types import TracebackType

READY_TIMEOUT_S = 150.0
END_TIMEOUT_S = 90.0
FREE_PORTS = ("--port", "0", "--grpc-port", "0", "--metrics-port", "0")


class UpProcess:
    """`async with` starts it, and makes sure that nothing of it is left."""

    def __init__(self, home: Path, *options: str) -> None:
        self._command = [sys.executable, "-m", "llmrouter_server", "up", "--home", str(home), *(options or FREE_PORTS)]
        self._process: asyncio.subprocess.Process | None = None
        self._offspring: set[int] = set()
        self.lines: list[str] = []

    async def __aenter__(self) -> UpProcess:  # noqa: PYI034 - never subclassed
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, limit=1 << 20
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.signal_group(signal.SIGKILL)
        await self.process.wait()
        for pid in self._offspring:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def ready(self) -> None:
        """Wait for the line `ready`; AssertionError with the output when the process ends instead."""
        await self.line("ready", READY_TIMEOUT_S)
        self._offspring = children_of(self.process.pid)

    async def line(self, wanted: str, timeout_s: float) -> None:
        """Read until a line that starts with `wanted`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            while not self.lines or not self.lines[-1].startswith(wanted):
                raw = await self.process.stdout.readline()
                assert raw, "\n".join(self.lines)
                self.lines.append(raw.decode().rstrip("\n"))

    async def end(self) -> int:
        """Read to the end of the output and return the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(END_TIMEOUT_S):
            rest = await self.process.stdout.read()
            self.lines += rest.decode().splitlines()
            return await self.process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal as the terminal, or a supervisor, does: to the whole process group."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, number)

    async def nothing_left(self, timeout_s: float = 20.0) -> None:
        """Wait until every process that it had started is gone; TimeoutError when one stays."""
        assert len(self._offspring) >= 3
        async with asyncio.timeout(timeout_s):
            while any(map(is_alive, self._offspring)):
                await asyncio.sleep(0.01)

    def pid_of(self, part: str) -> int:
        """Return the process whose command line holds this text."""
        (pid,) = [pid for pid in self._offspring if part in command_of(pid)]
        return pid

    def url(self) -> str:
        """The JSON API's address, from the output."""
        return self._printed(r"JSON +(\S+)")

    def token(self, role: str) -> str:
        """The token of a role, from the output."""
        return self._printed(rf"{role} token: (\S+)")

    def _printed(self, pattern: str) -> str:
        return next(match[1] for line in self.lines if (match := re.fullmatch(pattern, line)))


def children_of(pid: int) -> set[int]:
    """Return the processes that this one started itself."""
    if sys.platform == "linux":
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    else:
        text = subprocess.run(["/usr/bin/pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return {int(child) for child in text.split()}
