"""Puts scored candidates in order and picks: the same input gives the same decision on every replica."""

from __future__ import annotations

import heapq
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from llmrouter_server.routing.eligibility import Exclusion, Need, select_eligible
from llmrouter_server.routing.scoring import (
    NO_LIVE_LATENCIES,
    ONE_MILLION_EACH,
    Candidates,
    Scored,
    Tokens,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel


T = TypeVar("T")

FEW = 6
"""As many as are answered at most."""
SAME_SCORE_DIGITS = 12
"""Composites that agree to so many decimals are equal: what is left is the rounding of floating-point sums."""


class Shared:
    """Shared by all calls that ask for the same, as is what they make of it: see Decisions."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what is made of it under this name, made when it is first asked for."""
        made: T | None = self._made.get(name)
        if made is None:
            made = self._made[name] = make()
        return made


class Selection(Shared):
    """What a need leaves of the catalogue, to be ranked for any weights and any estimate of tokens."""

    def __init__(
        self, models: Iterable[CatalogModel], need: Need, live_latencies: Mapping[UUID, int] = NO_LIVE_LATENCIES
    ) -> None:
        """`models` are in the order of `in_order_of_ties`."""
        super().__init__()
        eligibility = select_eligible(models, need)
        named = [model for model in eligibility.candidates if model.model_name == need.model_name]
        others = [model for model in eligibility.candidates if model.model_name != need.model_name]
        self.named = len(named)
        """How many of the candidates were asked for by name: the first ones."""
        self.candidates = Candidates((*named, *others), live_latencies)
        self.excluded, self.degraded = eligibility.excluded, eligibility.degraded

    def decide(self, weights: Weights, tokens: Tokens) -> Decision:
        """Return the decision for these weights and this estimate."""
        return Decision(self, weights, tokens)


class Decision(Shared):
    """The fate of every model of the catalogue: ranked, best first, or excluded for one reason.

    Models that were asked for by name come first, whatever their scores.
    """

    def __init__(self, selection: Selection, weights: Weights, tokens: Tokens) -> None:
        super().__init__()
        self.selection, self._weights, self._tokens = selection, weights, tokens

    @property
    def excluded(self) -> tuple[tuple[CatalogModel, Exclusion], ...]:
        """The models that are no candidates, each with the reason."""
        return self.selection.excluded

    @property
    def degraded(self) -> bool:
        """Whether only unhealthy providers were left, so that health was not held against them."""
        return self.selection.degraded

    @property
    def ranked(self) -> tuple[Scored, ...]:
        """All candidates, scored and put in order anew: `best` is for who needs a few."""
        return self._rank(len(self.selection.candidates.models))

    @property
    def primary(self) -> Scored | None:
        """The best one; None: nobody is eligible, and `excluded` says why."""
        return self._few[0] if self._few else None

    def best(self, count: int) -> tuple[Scored, ...]:
        """Return so many of the candidates, or all that there are."""
        return self._few[:count] if count <= FEW else self._rank(count)

    def first(self, count: int, is_wanted: Callable[[CatalogModel], bool]) -> list[Scored]:
        """Return the best so many of those that are wanted."""
        looked_at = count
        while True:
            best = self.best(looked_at)
            wanted = [scored for scored in best if is_wanted(scored.model)]
            if len(wanted) >= count or len(best) < looked_at:
                return wanted[:count]
            looked_at *= 4

    @cached_property
    def _few(self) -> tuple[Scored, ...]:
        """All that is kept: the scores of many candidates would take more memory than it takes time to make them."""
        return self._rank(FEW)

    def _rank(self, count: int) -> tuple[Scored, ...]:
        scores, named = self.selection.candidates.score(self._weights, self._tokens), self.selection.named
        places = _best(scores.composites, range(named), count)
        if len(places) < count:
            places += _best(scores.composites, range(named, len(scores)), count - len(places))
        return tuple(scores[place] for place in places)


def _best(composites: Sequence[float], places: Sequence[int], count: int) -> list[int]:
    """Return the best so many places. Of equal composites the first one: candidates are in the order of ties."""
    if count < len(places):
        among = composites[places[0] : places[-1] + 1]
        least = heapq.nlargest(count, among)[-1] - 2 * 10**-SAME_SCORE_DIGITS  # what may be equal to it is in
        alike: dict[float, int] = {}
        first, places = places[0], []
        for place, composite in enumerate(among, first):
            if composite >= least and (before := alike.get(composite, 0)) < count:
                alike[composite] = before + 1
                places.append(place)
    return sorted(places, key=lambda place: -round(composites[place], SAME_SCORE_DIGITS))[:count]


def decide(
    models: Iterable[CatalogModel],
    need: Need,
    weights: Weights,
    tokens: Tokens = ONE_MILLION_EACH,
    live_latencies: Mapping[UUID, int] = NO_LIVE_LATENCIES,
) -> Decision:
    """Filter, score and order."""
    return Selection(in_order_of_ties(models), need, live_latencies).decide(weights, tokens)


def in_order_of_ties(models: Iterable[CatalogModel]) -> list[CatalogModel]:
    """Put models in the order in which they are preferred when they score the same.

    By priority, quality rating, model name; then the id, for two providers' models of the same name.
    """
    return sorted(
        models,
        key=lambda model: (
            -model.priority,
            -model.quality_rating,
            model.model_name,
            model.model_id.int,  # in the order of its text, which takes Python longer to write than all the others
        ),
    )
