"""The catalogue as routing sees it: immutable, numbered, with every model's facts in one flat record."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID


class PowerLevel(enum.Enum):
    """How much quality a request is worth. The values are those of the protobuf enum."""

    ECO = 1
    BALANCED = 2
    PRECISION = 3


CAPABILITIES = ("chat", "code", "vision", "tools", "json", "reasoning", "streaming")


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model together with what routing needs of its provider. Prices are US dollars per million tokens."""

    model_id: UUID
    provider_id: UUID
    model_name: str
    display_name: str
    provider_name: str
    api_endpoint: str
    power_level: PowerLevel
    input_cost_per_1m: float
    output_cost_per_1m: float
    avg_latency_ms: int
    quality_rating: float
    """0 to 10."""
    max_context_tokens: int
    capabilities: frozenset[str]
    priority: int
    """The provider's, 0 to 1000."""
    requires_byok: bool
    model_enabled: bool
    provider_enabled: bool
    provider_type: str = ""
    """Empty in snapshots from before it was kept."""


@dataclass(frozen=True, slots=True)
class CatalogRule:
    """An active routing rule: its condition, and what it makes of the requests that meet it."""

    rule_id: UUID
    rule_name: str
    condition: str = ""
    """In CEL; empty: it always holds."""
    power_level: PowerLevel | None = None
    strategy: str | None = None
    weights: tuple[float, float, float] | None = None
    """Of cost, latency and quality."""
    provider_ids: frozenset[UUID] = frozenset()
    """The only providers that it lets through; empty: all of them."""


@dataclass(frozen=True)
class Snapshot:
    """All models, enabled or not, and the active rules, as they were when the catalogue had this number."""

    number: int
    models: tuple[CatalogModel, ...]
    rules: tuple[CatalogRule, ...] = ()
    """In the order in which they are tried."""

    @cached_property
    def providers(self) -> tuple[CatalogModel, ...]:
        """One model of each provider."""
        return one_of_each_provider(self.models)

    @cached_property
    def levels(self) -> Mapping[str, Sequence[PowerLevel]]:
        """The power levels that have a model of this name."""
        levels: dict[str, list[PowerLevel]] = {}
        for model in self.models:
            levels.setdefault(model.model_name, []).append(model.power_level)
        return levels


def one_of_each_provider(models: Iterable[CatalogModel]) -> tuple[CatalogModel, ...]:
    """Return a model of each provider that has one among these, for what models know of their provider."""
    return tuple({model.provider_id: model for model in models}.values())
