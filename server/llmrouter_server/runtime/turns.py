"""Long work on the event loop, with turns for everybody else in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

T = TypeVar("T")


async def in_turns(items: Iterable[T], at_once: int) -> AsyncIterator[T]:
    """Go through many, and let others have their turn before each `at_once` of them."""
    for number, item in enumerate(items):
        if number % at_once == 0:
            await asyncio.sleep(0)
        yield item
