"""Counts what is done in one go, before others have their turn of the event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

P, T = ParamSpec("P"), TypeVar("T")


class InOneGo:
    """How often something was called: since others last had their turn, at most, and in all."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0

    def counted(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, which counts its calls from now on."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            self.now += 1
            self.all += 1
            self.most = max(self.most, self.now)
            return function(*args, **kwargs)

        return call

    async def take_turns(self) -> None:
        """Be the others, until cancelled."""
        while True:
            self.now = 0
            await asyncio.sleep(0)


@asynccontextmanager
async def in_one_go() -> AsyncIterator[InOneGo]:
    """Count while this lasts."""
    counting = InOneGo()
    others = asyncio.create_task(counting.take_turns())
    yield counting
    others.cancel()
