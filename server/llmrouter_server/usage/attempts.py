"""What usage says of the providers' health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.health.machine import Attempt, Outcome
from llmrouter_server.usage.record import Failure

if TYPE_CHECKING:
    from llmrouter_server.usage.record import UsageRecord

PROVIDER_FAULTS = frozenset({Failure.CONNECT, Failure.TIMEOUT, Failure.SERVER_ERROR, Failure.RATE_LIMITED})


def attempt_of(record: UsageRecord) -> Attempt:
    """Return how an attempt ended, as far as its provider is concerned."""
    report = record.report
    if report.succeeded:
        outcome = Outcome.SUCCESS
    else:
        outcome = Outcome.PROVIDER_FAULT if report.failure in PROVIDER_FAULTS else Outcome.NEUTRAL
    return Attempt(report.occurred_at.timestamp(), record.provider_id, report.model_id, outcome, report.latency_ms)
