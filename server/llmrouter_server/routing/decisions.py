"""Decisions that were made already: the same facts over the same catalogue need not be weighed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.routing.record import Facts
    from llmrouter_server.routing.selection import Decision

MOST_VERDICTS = 100_000
"""How many models' fates are kept, of all decisions together: about 20 MB."""


class Decisions:
    """Keeps decisions until the catalogue or a latency changes. Users with the same keys and wishes share them."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._latencies: Mapping[UUID, int] | None = None
        self._made: dict[Hashable, Decision] = {}

    def decide(self, snapshot: Snapshot, facts: Facts) -> Decision:
        """Return the decision, which may be one that was returned before."""
        if snapshot is not self._snapshot or facts.live_latencies is not self._latencies:
            self._snapshot, self._latencies = snapshot, facts.live_latencies
            self._made.clear()
        key = facts.need, facts.weights, facts.tokens
        decision = self._made.get(key)
        if decision is None:
            decision = facts.decide(snapshot.models)
            if (len(self._made) + 1) * len(snapshot.models) > MOST_VERDICTS:
                self._made.clear()
            self._made[key] = decision
        return decision
