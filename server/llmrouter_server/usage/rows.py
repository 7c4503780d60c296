"""Usage as Postgres takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrouter_server.usage.record import ERROR, SUCCESS

if TYPE_CHECKING:
    from llmrouter_server.usage.record import Report


def report_row(report: Report) -> tuple[Any, ...]:
    """Return a report as Postgres' type llm_usage_report."""
    return (
        report.usage_id,
        report.user_id,
        report.model_id,
        report.request_id,
        report.decision_id,
        report.payer,
        report.input_tokens,
        report.output_tokens,
        report.latency_ms,
        SUCCESS if report.succeeded else ERROR,
        report.failure.name if report.failure else None,
        report.error_message,
        report.occurred_at,
        report.cached_tokens,
        report.reasoning_tokens,
        report.is_estimated,
    )
