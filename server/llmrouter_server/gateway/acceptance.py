"""Which providers may be named in a plan: an unknown cluster would end a request without a try at the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Pair: TypeAlias = tuple[UUID, str]
"""A provider and its endpoint: after a change of the endpoint it is as new."""
PATIENCE_S = 3.0
"""Every Envoy has a new provider by then: one whose stream another process holds is not heard here."""
SPREAD_S = 1.0
"""Envoy says that it has a cluster a moment before the last of its threads has it."""


class Acceptance:
    """Remembers since when each provider is there, and what was said about it.

    What was there at the first look may be named at once. Envoy has it from another process, or takes no requests
    before it has asked for its clusters; a server that starts must not refuse everything for a while.
    """

    def __init__(self, clock: Callable[[], float], *, spread_s: float = SPREAD_S) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock, self._spread_s = clock, spread_s
        self._usable_from: dict[Pair, float] | None = None
        self._accepted_from: dict[Pair, float] = {}
        self._refused: set[Pair] = set()

    def is_usable(self, pair: Pair) -> bool:
        """Tell whether it is there, and an Envoy has it or has had the time."""
        usable_from = (self._usable_from or {}).get(pair)
        if usable_from is None:
            return False
        now, accepted_from = self._clock(), self._accepted_from.get(pair)
        if accepted_from is not None and now >= accepted_from:
            return True
        return pair not in self._refused and now >= usable_from

    def now_there(self, pairs: Iterable[Pair]) -> None:
        """Note what is there now. What is not is forgotten, and new when it comes back."""
        now, known = self._clock(), self._usable_from
        new_from = now if known is None else now + PATIENCE_S
        self._usable_from = {pair: (known or {}).get(pair, new_from) for pair in pairs}
        self._accepted_from = {pair: at for pair, at in self._accepted_from.items() if pair in self._usable_from}
        self._refused &= self._usable_from.keys()

    def accept(self, pairs: Iterable[Pair]) -> None:
        """Note that an Envoy has them."""
        here = (self._usable_from or {}).keys() & set(pairs)
        usable_from = self._clock() + self._spread_s
        for pair in here:
            self._accepted_from.setdefault(pair, usable_from)
        self._refused -= here

    def refuse(self, pairs: Iterable[Pair]) -> None:
        """Note that an Envoy refused them, which counts unless another one has taken them."""
        self._refused |= (self._usable_from or {}).keys() & set(pairs)
