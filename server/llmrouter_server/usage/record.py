"""One attempt at a provider, as it is reported and as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.usage.pricing import cost_usd

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

USER_KEY = "USER_KEY"
PLATFORM = "PLATFORM"


@dataclass(frozen=True, slots=True)
class Report:
    """What a service reports of an attempt."""

    usage_id: UUID
    user_id: UUID
    request_id: str
    model_id: UUID
    input_tokens: int
    output_tokens: int
    latency_ms: int | None
    succeeded: bool
    error_message: str | None
    decision_id: UUID | None
    payer: str | None
    """USER_KEY or PLATFORM; None: to be found out."""
    occurred_at: datetime

    @property
    def key(self) -> tuple[UUID, str]:
        """What makes recording it idempotent."""
        return self.user_id, self.request_id


@dataclass(frozen=True, slots=True)
class PricedModel:
    """What recording needs to know of a model."""

    provider_id: UUID
    power_level: str
    input_cost_per_1m: Decimal
    output_cost_per_1m: Decimal


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A report with what it cost at the prices of the moment, and who paid."""

    report: Report
    model: PricedModel
    payer: str

    @property
    def cost_usd(self) -> Decimal:
        """US dollars, exact."""
        return cost_usd(
            input_tokens=self.report.input_tokens,
            output_tokens=self.report.output_tokens,
            input_cost_per_1m=self.model.input_cost_per_1m,
            output_cost_per_1m=self.model.output_cost_per_1m,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is stored for a request id; for a repeated report, what was stored the first time."""

    usage_id: UUID
    cost_usd: Decimal
    is_duplicate: bool
