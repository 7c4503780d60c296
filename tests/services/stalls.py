"""How long, at worst, this process and those it has started stood still: for so long no health check is answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

TICK_S = 0.05


class Stalls:
    """Watches until the end of the block."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        ticked, before = time.monotonic(), _waited_s()
        while True:
            await asyncio.sleep(TICK_S)
            waited = _waited_s()
            late = [each - before[thread] for thread, each in waited.items() if thread in before]
            self.longest_s = max(self.longest_s, time.monotonic() - ticked - TICK_S, *late)
            ticked, before = time.monotonic(), waited


def _waited_s() -> dict[Path, float]:
    """Return how long each thread of our children has waited for a core, where Linux tells it."""
    waited = {}
    for ours in Path("/proc/self/task").glob("*/children"):
        for child in ours.read_text().split():
            with contextlib.suppress(OSError, IndexError):  # it may be gone meanwhile
                for thread in Path(f"/proc/{child}/task").iterdir():
                    waited[thread] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return waited
