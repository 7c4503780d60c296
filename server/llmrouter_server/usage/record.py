"""One attempt at a provider, as it is reported and as it is stored.

What is made for each is a named tuple: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

USER_KEY = "USER_KEY"
PLATFORM = "PLATFORM"
SUCCESS = "success"
ERROR = "error"


class Failure(enum.Enum):
    """Why an attempt failed. The values are those of the protobuf enum AttemptFailure."""

    CONNECT = 1
    TIMEOUT = 2
    SERVER_ERROR = 3
    RATE_LIMITED = 4
    UNAUTHORIZED = 5
    CALLER = 6
    CANCELLED = 7


class Report(NamedTuple):
    """What a service reports of an attempt."""

    usage_id: UUID
    user_id: UUID
    request_id: str
    model_id: UUID
    input_tokens: int
    output_tokens: int
    latency_ms: int | None
    succeeded: bool
    failure: Failure | None
    """Why it failed; None for a success, or when it is not known."""
    error_message: str | None
    decision_id: UUID | None
    payer: str | None
    """USER_KEY or PLATFORM; None: to be found out."""
    occurred_at: datetime
    cached_tokens: int = 0
    """Those of the input tokens that the provider had in its cache."""
    reasoning_tokens: int = 0
    """Those of the output tokens that went into reasoning."""
    is_estimated: bool = False
    """Whether the tokens are an estimate, because the answer did not tell them."""

    @property
    def key(self) -> tuple[UUID, str]:
        """What makes recording it idempotent."""
        return self.user_id, self.request_id


class UsageRecord(NamedTuple):
    """A report with what it cost at the prices of the moment, and who paid."""

    report: Report
    provider_id: UUID
    payer: str
    cost_usd: Decimal
    """US dollars, exact."""


class Receipt(NamedTuple):
    """What is stored for a request id; for a repeated report, what was stored the first time."""

    usage_id: UUID
    cost_usd: Decimal
    record: UsageRecord | None
    """The record, if it was stored now; None when this request id was stored before."""

    @property
    def is_duplicate(self) -> bool:
        """Whether this request id was stored before."""
        return self.record is None


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it is read again."""

    usage_id: UUID
    request_id: str
    occurred_at: datetime
    provider_id: UUID
    provider_name: str
    model_id: UUID
    model_name: str
    power_level: str
    payer: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    latency_ms: int | None
    status: str
    """SUCCESS or ERROR."""
    failure: str | None
    """The name of a Failure."""
    error_message: str | None
    decision_id: UUID | None
    cached_tokens: int
    reasoning_tokens: int
    is_estimated: bool
