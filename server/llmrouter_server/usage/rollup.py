"""Sums of usage for each user and UTC day, and for each user and UTC hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from llmrouter_server.usage.period import month_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime
    from uuid import UUID

    from llmrouter_server.usage.record import UsageRecord

DayKey: TypeAlias = "tuple[UUID, date, UUID, UUID, str, str]"
HourKey: TypeAlias = "tuple[UUID, datetime, UUID, UUID, str]"
MonthKey: TypeAlias = "tuple[UUID, date]"
Key = TypeVar("Key")

HOURLY_DAYS = 62
"""How long hourly sums are kept: today and so many days before it."""


@dataclass(slots=True)
class Sum:
    """What was used together."""

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

    @property
    def figures(self) -> tuple[int, int, int, int, Decimal, int, int]:
        """The fields, in their order."""
        return (
            self.requests,
            self.failed_requests,
            self.input_tokens,
            self.output_tokens,
            self.cost_usd,
            self.latency_ms_sum,
            self.latency_count,
        )

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


# Every writer locks the sums in the order of their keys, so that two writers never wait for each other.


def daily_sums(records: Iterable[UsageRecord]) -> dict[DayKey, Sum]:
    """Sum records by user, day, provider, model, power level and payer, in the order of these."""
    return _summed((_day_key(record), record) for record in records)


def hourly_sums(records: Iterable[UsageRecord]) -> dict[HourKey, Sum]:
    """Sum records by user, hour, provider, model and power level, in the order of these."""
    return _summed((_hour_key(record), record) for record in records)


def monthly_costs(records: Iterable[UsageRecord]) -> dict[MonthKey, Decimal]:
    """Sum what records cost by user and month."""
    costs: dict[MonthKey, Decimal] = {}
    for record in records:
        key = record.report.user_id, month_of(record.report.occurred_at)
        costs[key] = costs.get(key, Decimal(0)) + record.cost_usd
    return costs


def _summed(keyed: Iterable[tuple[Key, UsageRecord]]) -> dict[Key, Sum]:
    sums: dict[Key, Sum] = {}
    for key, record in keyed:
        found = sums.get(key)
        if found is None:
            sums[key] = found = Sum()
        found.add(record)
    return dict(sorted(sums.items()))


def _day_key(record: UsageRecord) -> DayKey:
    report, model = record.report, record.model
    day = report.occurred_at.astimezone(UTC).date()
    return report.user_id, day, model.provider_id, report.model_id, model.power_level, record.payer


def _hour_key(record: UsageRecord) -> HourKey:
    report, model = record.report, record.model
    hour = report.occurred_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return report.user_id, hour, model.provider_id, report.model_id, model.power_level
