"""Child processes of the local stack: each in a session of its own, logging to a file, dying with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAUNCHER = Path(__file__).with_name("local_launcher.py")
MAX_LOG_BYTES = 10 * 1024 * 1024
TAIL_BYTES = 16_384
POLL_S = 0.02
KILLED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Another account of this machine that a program runs as; only root can use one."""

    name: str
    uid: int
    gid: int


def launch_command(command: Sequence[str], *, account: Account | None, death_signal: signal.Signals) -> list[str]:
    """Return the command that becomes `command` and gets `death_signal` when this process dies (Linux)."""
    ids = [str(account.uid), str(account.gid)] if account else ["", ""]
    # Isolated and without `site`: it starts in 10 ms and reads nothing of the environment or the working directory.
    interpreter = [sys.executable, "-I", "-S", str(LAUNCHER)]
    return [*interpreter, str(os.getpid()), str(int(death_signal)), *ids, *command]


class Child:
    """One long-running program. It is started again by calling `start` again."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the running or last run program; RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and its end was not seen yet."""
        return self._process is not None and self._process.returncode is None

    async def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        account: Account | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start the program in `/`, with exactly this environment and its output appended to the log."""
        with open_log(self.log) as log:
            self._process = await asyncio.create_subprocess_exec(
                *launch_command(command, account=account, death_signal=death_signal),
                env=dict(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for its parent, which stops it in its turn
            )

    async def wait(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return await self._process.wait()

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal and give it so many seconds; at last kill."""
        for number, patience_s in steps:
            if not self.is_running:
                return
            self.signal(number)
            self.signal(signal.SIGCONT)  # one that is paused could not end
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), patience_s)
        if self.is_running:
            self.signal(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):  # one that even that cannot end must not keep the others alive
                await asyncio.wait_for(self.wait(), KILLED_WITHIN_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this one process; nothing happens when it has ended."""
        if self._process is not None:
            send_signal(self._process, number)

    def last_lines(self, count: int = 10) -> list[str]:
        """Return the end of its log."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]
        return []


async def run(
    command: Sequence[str], *, env: Mapping[str, str], account: Account | None, timeout_s: float, text: str = ""
) -> tuple[int, str]:
    """Run a program to its end with `text` as its input; return its exit code and all it printed.

    TimeoutError, with the program killed, when it takes longer.
    """
    process = await asyncio.create_subprocess_exec(
        *launch_command(command, account=account, death_signal=signal.SIGKILL),
        env=dict(env),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(text.encode()), timeout_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session's leader: what it started goes too
        await process.wait()
        raise
    return await process.wait(), output.decode("utf-8", "replace")


def send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a child; nothing happens when it has ended.

    asyncio's own looks first whether the child has ended. When that is so and asyncio has not noticed yet, it takes the
    exit code from under asyncio, which then says 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def end_foreign(pid: int, *steps: tuple[signal.Signals, float]) -> None:
    """End a process that is not our child, as `Child.stop` does. The caller has made sure whose it is."""
    for number, patience_s in (*steps, (signal.SIGKILL, KILLED_WITHIN_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while is_alive(pid):  # noqa: ASYNC110 - a process that is not our child gives no event
                    await asyncio.sleep(POLL_S)
            return


def is_alive(pid: int) -> bool:
    """Whether there is such a process, whoever owns it. One that has ended but was not waited for counts as gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return True


def command_of(pid: int) -> str:
    """Return a process's command line, empty when there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        return ""
    listing = ["/bin/ps", "-o", "command=", "-p", str(pid)]
    done = subprocess.run(listing, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603 - a number
    return done.stdout.strip()


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, after `bound_log`. Only its owner can read it."""
    bound_log(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def bound_log(path: Path) -> None:
    """Set a log over 10 MB aside, in place of the one that was set aside before."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".old"))
