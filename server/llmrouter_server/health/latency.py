"""Latencies of a provider's successes within the window, this replica's and the others' together.

Medians and percentiles are by nearest rank: the smallest value that so many per cent of the values do not exceed. So
each is one that was measured, in whole milliseconds.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
        self._percentiles: tuple[int, int] | tuple[None, None] | None = None

    def changed(self) -> None:
        """Note that anything may have changed."""
        self._sorted.clear()
        self._percentiles = None

    def added(self, model_id: UUID) -> None:
        """Note that there is a new one of this model."""
        self._sorted.pop(model_id, None)
        self._percentiles = None

    def by_model(self) -> Mapping[UUID, Sequence[int]]:
        """Return all of them in ascending order."""
        peers = self._peers.latencies
        for model_id in self._own.models() | peers.keys():
            if model_id not in self._sorted:
                self._sorted[model_id] = sorted(self._own.latencies(model_id) + peers.get(model_id, []))
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
        if self._percentiles is None:
            every = sorted(itertools.chain.from_iterable(self.by_model().values()))
            self._percentiles = (nearest_rank(every, 50), nearest_rank(every, 95)) if every else (None, None)
        return self._percentiles

    def are_slow(self, catalog_ms: Mapping[UUID, int]) -> bool:
        """Tell whether the median is over twice the catalogue's mean, weighted by how often each model was used.

        Not judged by less than 5, or with a model among them of which the catalogue says nothing.
        """
        counts = {model_id: len(each) for model_id, each in self.by_model().items()}
        total, (median, _) = sum(counts.values()), self.p50_and_p95()
        if median is None or total < SLOW_FROM or not all(catalog_ms.get(model_id) for model_id in counts):
            return False
        return median * total > SLOW_FACTOR * sum(count * catalog_ms[model_id] for model_id, count in counts.items())


def nearest_rank(ascending: Sequence[int], percent: int) -> int:
    """Return the smallest value that at least `percent` % (1 to 100) of the values, one or more, do not exceed."""
    return ascending[-(-len(ascending) * percent // 100) - 1]
