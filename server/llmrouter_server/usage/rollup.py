"""Sums of usage for each user and UTC day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from llmrouter_server.usage.record import UsageRecord

SumKey: TypeAlias = "tuple[UUID, date, UUID, UUID, str, str]"


@dataclass(slots=True)
class DailySum:
    """What one user used of one model on one day, at one power level and by one payer."""

    requests: int = 0
    failed_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    latency_ms_sum: int = 0
    latency_count: int = 0

    def add(self, record: UsageRecord) -> None:
        """Add one record. Failed ones count apart, but what they cost counts; their latency does not."""
        report = record.report
        self.input_tokens += report.input_tokens
        self.output_tokens += report.output_tokens
        self.cost_usd += record.cost_usd
        if not report.succeeded:
            self.failed_requests += 1
            return
        self.requests += 1
        if report.latency_ms is not None:
            self.latency_ms_sum += report.latency_ms
            self.latency_count += 1


def daily_sums(records: Iterable[UsageRecord]) -> dict[SumKey, DailySum]:
    """Sum records by user, day, provider, model, power level and payer, in the order of these.

    Every writer locks the sums in this one order, so that two writers never wait for each other.
    """
    sums: dict[SumKey, DailySum] = {}
    for record in records:
        report, model = record.report, record.model
        day = report.occurred_at.astimezone(UTC).date()
        key = (report.user_id, day, model.provider_id, report.model_id, model.power_level, record.payer)
        sums.setdefault(key, DailySum()).add(record)
    return dict(sorted(sums.items()))
