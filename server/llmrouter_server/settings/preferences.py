"""A user's preferences: the defaults, how changes merge, and what is valid as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from llmrouter_server.catalog.snapshot import PowerLevel

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from llmrouter_server.runtime.fields import Fields

ON_BUDGET_EXCEEDED = ("downgrade", "reject")
STRATEGIES = ("balanced", "cost_optimized", "latency_optimized", "quality_optimized")
WEIGHT_SUM_TOLERANCE = 0.001
MAX_BUDGET_USD = 1_000_000


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """How a user wants cost, latency and quality weighed; the weights are used by the strategy `balanced`."""

    strategy: str = "balanced"
    cost_weight: float = 0.4
    latency_weight: float = 0.4
    quality_weight: float = 0.2

    def merged(self, changes: dict[str, str | float]) -> RoutingConfig:
        """Return this with the given fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type] # the keys are this class's fields

    def check(self, fields: Fields) -> None:
        """Note in `fields` whatever is wrong with this as a whole."""
        fields.one_of("routing_config.strategy", self.strategy, STRATEGIES)
        weights = {name: value for name, value in asdict(self).items() if name != "strategy"}
        for name, value in weights.items():
            fields.fraction(f"routing_config.{name}", value)
        total = sum(weights.values())
        if not abs(total - 1) <= WEIGHT_SUM_TOLERANCE + 1e-12:
            fields.wrong("routing_config", f"the three weights must sum to 1, not {total:.6g}")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user prefers; the defaults until they change something."""

    preferred_power_level: PowerLevel = PowerLevel.BALANCED
    routing_config: RoutingConfig = RoutingConfig()
    monthly_budget_usd: Decimal | None = None
    on_budget_exceeded: str = "downgrade"
    """`downgrade`: only free ECO models are candidates; `reject`: none."""
    updated_at: datetime | None = None
