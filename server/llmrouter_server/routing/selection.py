"""Puts scored candidates in order and picks: the same input gives the same decision on every replica."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llmrouter_server.routing.eligibility import Exclusion, Need, select_eligible
from llmrouter_server.routing.scoring import NO_LIVE_LATENCIES, ONE_MILLION_EACH, Scored, Tokens, Weights, score

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel


T = TypeVar("T")

SAME_SCORE_DIGITS = 12
"""Composites that agree to so many decimals are equal: what is left is the rounding of floating-point sums."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The fate of every model of the catalogue: ranked, best first, or excluded for one reason."""

    ranked: tuple[Scored, ...]
    excluded: tuple[tuple[CatalogModel, Exclusion], ...]
    degraded: bool
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what is made of the decision under this name, made when it is first asked for.

        Calls that ask for the same share a decision, and so what is made of it: see Decisions.
        """
        made: T | None = self._made.get(name)
        if made is None:
            made = self._made[name] = make()
        return made


def decide(
    models: Iterable[CatalogModel],
    need: Need,
    weights: Weights,
    tokens: Tokens = ONE_MILLION_EACH,
    live_latencies: Mapping[UUID, int] = NO_LIVE_LATENCIES,
) -> Decision:
    """Filter, score and order; models that were asked for by name come first, whatever their scores.

    Nobody eligible: `ranked` is empty, and `excluded` says why.
    """
    eligibility = select_eligible(models, need)
    ranked = sorted(score(eligibility.candidates, weights, tokens, live_latencies), key=_rank)
    if need.model_name is not None:
        ranked.sort(key=lambda scored: scored.model.model_name != need.model_name)  # the order within stays
    return Decision(tuple(ranked), eligibility.excluded, eligibility.degraded)


def _rank(scored: Scored) -> tuple[float, int, float, str, int]:
    """Composite, priority, quality rating, model name; then the id, for two providers' models of the same name."""
    model = scored.model
    return (
        -round(scored.composite, SAME_SCORE_DIGITS),
        -model.priority,
        -model.quality_rating,
        model.model_name,
        model.model_id.int,  # in the order of its text, which takes Python longer to write than all the others
    )
