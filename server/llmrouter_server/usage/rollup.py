"""Sums of usage, which Postgres makes when it stores records."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


HOURLY_DAYS = 62
"""How long hourly sums are kept: today and so many days before it."""


@dataclass(slots=True)
class Sum:
    """What was used together. Failed requests count apart, but what they cost counts; their latency does not."""

    requests: int = 0
    failed_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms_sum: int = 0
    latency_count: int = 0

    @property
    def mean_latency_ms(self) -> int:
        """Of successful requests whose latency is known; 0 when there are none."""
        return round(self.latency_ms_sum / self.latency_count) if self.latency_count else 0


@dataclass(frozen=True, slots=True)
class UsageSum:
    """What was used of one provider at one power level."""

    provider_name: str
    power_level: str
    requests: int
    failed_requests: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    latency_ms_sum: int
    latency_count: int


@dataclass(frozen=True, slots=True)
class Only:
    """Which of a user's usage is asked for; None: all of it."""

    provider_id: UUID | None = None
    model_id: UUID | None = None
    power_level: str | None = None
