"""Decisions that were made already: the same facts over the same catalogue need not be weighed again."""

from __future__ import annotations

import sys
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from llmrouter_server.routing.selection import Selection, in_order_of_ties

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel, Snapshot
    from llmrouter_server.routing.eligibility import Need
    from llmrouter_server.routing.record import Facts
    from llmrouter_server.routing.selection import Decision

MOST_DECISIONS, MOST_VERDICTS = 2000, 100_000
"""How many decisions are kept, and how many models' fates, of all selections together: about 9 and 10 MB."""


class Decisions:
    """Keeps decisions until the catalogue or a latency changes. Users with the same keys and wishes share them.

    A request that differs from others by its weights or its estimate of tokens shares their selection still.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._latencies: Mapping[UUID, int] | None = None
        self._models: Sequence[CatalogModel] = ()
        self._contexts: Sequence[int] = ()
        """How many tokens models hold: the different numbers in order, and one above them."""
        self._made: dict[Hashable, Decision] = {}
        self._selections: dict[Need, Selection] = {}

    def decide(self, snapshot: Snapshot, facts: Facts) -> Decision:
        """Return the decision, which may be one that was returned before."""
        if snapshot is not self._snapshot:
            self._models = in_order_of_ties(snapshot.models)
            self._contexts = [*sorted({model.max_context_tokens for model in snapshot.models}), sys.maxsize]
        if snapshot is not self._snapshot or facts.live_latencies is not self._latencies:
            self._snapshot, self._latencies = snapshot, facts.live_latencies
            self._made.clear()
            self._selections.clear()
        key = facts.need, facts.weights, facts.tokens
        decision = self._made.get(key)
        if decision is None:
            decision = self._selection(facts).decide(facts.weights, facts.tokens)
            if len(self._made) >= MOST_DECISIONS:
                self._made.clear()
            self._made[key] = decision
        return decision

    def _selection(self, facts: Facts) -> Selection:
        """Return what the need leaves. A little more context, and no model fewer has it: that is the same selection."""
        need = facts.need
        same = self._contexts[bisect_left(self._contexts, need.context_tokens)]
        if same != need.context_tokens:
            need = replace(need, context_tokens=same)
        selection = self._selections.get(need)
        if selection is None:
            selection = Selection(self._models, need, facts.live_latencies)
            if (len(self._selections) + 1) * len(self._models) > MOST_VERDICTS:
                self._selections.clear()
                self._made.clear()  # a decision keeps its selection
            self._selections[need] = selection
        return selection
