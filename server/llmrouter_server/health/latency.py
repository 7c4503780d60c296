"""Latencies of a provider's successes within the window, this replica's and the others' together.

Medians and percentiles are by nearest rank: the smallest value that so many per cent of the values do not exceed. So
each is one that was measured, in whole milliseconds.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from llmrouter_server.health.window import Peers, Window

LIVE_LATENCY_FROM = 20
"""Latencies of a model, before their median says more than the catalogue."""
SLOW_FROM = 5
"""Latencies of a provider, before it can be called slow."""
SLOW_FACTOR = 2


class Latencies:
    """Sorts the latencies of two windows when it is asked, and remembers that until it is told of a change."""

    def __init__(self, own: Window, peers: Peers) -> None:
        self._own, self._peers = own, peers
        self._sorted: dict[UUID, list[int]] = {}

    def changed(self) -> None:
        """Note that anything may have changed."""
        self._sorted.clear()

    def added(self, model_id: UUID) -> None:
        """Note that there is a new one of this model."""
        self._sorted.pop(model_id, None)

    def sort(self) -> Iterator[None]:
        """Sort those of one more model with each step; anything may be done between two."""
        for model_id in (self._own.models() | self._peers.models()) - self._sorted.keys():
            if every := sorted(self._own.latencies(model_id) + self._peers.latencies(model_id)):
                self._sorted[model_id] = every  # none are left of a model that left the window between two steps
            yield

    def by_model(self) -> Mapping[UUID, Sequence[int]]:
        """Return all of them in ascending order."""
        for _ in self.sort():
            pass
        return self._sorted

    def live(self) -> dict[UUID, int]:
        """Return the median of each model that has at least 20."""
        return {
            model_id: nearest_rank(each, 50)
            for model_id, each in self.by_model().items()
            if len(each) >= LIVE_LATENCY_FROM
        }

    def p50_and_p95(self) -> tuple[int, int] | tuple[None, None]:
        """Return the provider's median and 95th percentile; nothing when no latency is known."""
        several = self.by_model().values()
        return (nearest_rank_of_all(several, 50), nearest_rank_of_all(several, 95)) if several else (None, None)

    def are_slow(self, catalog_ms: Mapping[UUID, int]) -> bool:
        """Tell whether the median is over twice the catalogue's mean, weighted by how often each model was used.

        Not judged by less than 5, or with a model among them of which the catalogue says nothing.
        """
        counts = {model_id: len(each) for model_id, each in self.by_model().items()}
        total = sum(counts.values())
        if total < SLOW_FROM or not all(catalog_ms.get(model_id) for model_id in counts):
            return False
        allowed = SLOW_FACTOR * sum(count * catalog_ms[model_id] for model_id, count in counts.items()) // total
        return _count_up_to(allowed, self._sorted.values()) < _rank(total, 50)


def nearest_rank(ascending: Sequence[int], percent: int) -> int:
    """Return the smallest value that at least `percent` % (1 to 100) of the values, one or more, do not exceed."""
    return ascending[_rank(len(ascending), percent) - 1]


def nearest_rank_of_all(several: Collection[Sequence[int]], percent: int) -> int:
    """Return the same of all values of several sequences. They are not put together: that would take long."""
    rank = _rank(sum(map(len, several)), percent)
    values = range(max(ascending[-1] for ascending in several) + 1)
    return bisect_left(values, rank, key=lambda value: _count_up_to(value, several))


def _rank(count: int, percent: int) -> int:
    return -(-count * percent // 100)


def _count_up_to(value: int, several: Iterable[Sequence[int]]) -> int:
    return sum(map(bisect_right, several, itertools.repeat(value)))
