"""One look at the database for all who need one at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Seen = TypeVar("Seen")


class SharedLook(Generic[Seen]):
    """Calls `look`, never twice at once.

    All who come while a look is under way share the next one, its failure included. They cannot share the one under
    way: it may have begun before a change that they must see.
    """

    def __init__(self, look: Callable[[], Awaitable[Seen]]) -> None:
        self._look = look
        self._looking = asyncio.Lock()
        self._begun = self._ended = 0
        self._outcome: Seen | None = None
        self._failure: Exception | None = None

    async def __call__(self) -> Seen:
        """Return what a look saw that began after this call."""
        begun = self._begun
        async with self._looking:
            if self._ended <= begun:
                self._begun += 1
                number = self._begun
                try:
                    self._outcome, self._failure = await self._look(), None
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told to each of them
                    self._outcome, self._failure = None, error
                self._ended = number
            if self._failure is not None:
                raise self._failure
            return self._outcome  # type: ignore[return-value] # a look has ended
