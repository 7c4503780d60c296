"""Usage as rows of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrouter_server.usage.record import ERROR, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.usage.record import UsageRecord


def record_row(record: UsageRecord) -> tuple[Any, ...]:
    """Make a row of llm_usage_logs, in the order in which its insert names the columns."""
    report, model = record.report, record.model
    return (
        report.usage_id,
        report.user_id,
        model.provider_id,
        report.model_id,
        report.request_id,
        report.decision_id,
        model.power_level,
        record.payer,
        report.input_tokens,
        report.output_tokens,
        record.cost_usd,
        report.latency_ms,
        SUCCESS if report.succeeded else ERROR,
        report.failure.name if report.failure else None,
        report.error_message,
        report.occurred_at,
        report.cached_tokens,
        report.reasoning_tokens,
        report.is_estimated,
    )


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into the columns that unnest() takes."""
    return [[row[position] for row in rows] for position in range(width)]
