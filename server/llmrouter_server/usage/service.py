"""The door of usage: UsageService."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import uuid_utils.compat as uuid_utils

from llmrouter.v2 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.runtime.interceptor import current_caller
from llmrouter_server.runtime.messages import timestamp
from llmrouter_server.usage.record import PLATFORM, USER_KEY, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from google.protobuf.timestamp_pb2 import Timestamp

    from llmrouter_server.runtime.interceptor import Context
    from llmrouter_server.usage.recorder import UsageRecorder
    from llmrouter_server.usage.store import UsageStore, UsageSum

DEFAULT_DAYS = 30
MAX_DAYS = 365
MAX_TOKENS = 1_000_000_000
MAX_LATENCY_MS = 86_400_000
MAX_ERROR_CHARS = 1000
MAX_AGE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
PAYERS = {usage_pb2.PAYER_UNSPECIFIED: None, usage_pb2.PAYER_USER_KEY: USER_KEY, usage_pb2.PAYER_PLATFORM: PLATFORM}
FAILED = {
    usage_pb2.USAGE_STATUS_UNSPECIFIED: False,
    usage_pb2.USAGE_STATUS_SUCCESS: False,
    usage_pb2.USAGE_STATUS_ERROR: True,
}


class UsageService(usage_service_pb2_grpc.UsageServiceServicer):
    """Usage: users read their own, services record it."""

    def __init__(self, store: UsageStore, recorder: UsageRecorder, now: Callable[[], datetime]) -> None:
        self._store, self._recorder, self._now = store, recorder, now

    async def GetUsage(
        self, request: usage_service_pb2.GetUsageRequest, _context: Context
    ) -> usage_service_pb2.GetUsageResponse:
        user_id = current_caller().acts_for(request.user_id)
        first, last = _period(request, self._now().astimezone(UTC).date())
        return _usage(user_id, first, last, await self._store.sums(user_id, first, last))

    async def RecordUsage(
        self, request: usage_service_pb2.RecordUsageRequest, _context: Context
    ) -> usage_service_pb2.RecordUsageResponse:
        receipt = await self._recorder.record(_report(request, self._now()))
        return usage_service_pb2.RecordUsageResponse(
            usage_id=str(receipt.usage_id), cost_usd=float(receipt.cost_usd), is_duplicate=receipt.is_duplicate
        )


def _report(request: usage_service_pb2.RecordUsageRequest, now: datetime) -> Report:
    fields = Fields()
    if not REQUEST_ID.fullmatch(request.request_id):
        fields.wrong("request_id", "must be 1 to 128 printable ASCII characters without spaces")
    if request.payer not in PAYERS:
        fields.wrong("payer", "must be PAYER_USER_KEY or PAYER_PLATFORM")
    if request.status not in FAILED:
        fields.wrong("status", "must be USAGE_STATUS_SUCCESS or USAGE_STATUS_ERROR")
    report = Report(
        usage_id=uuid_utils.uuid7(),
        user_id=fields.uuid("user_id", request.user_id),
        request_id=request.request_id,
        model_id=fields.uuid("model_id", request.model_id),
        input_tokens=fields.number("input_tokens", request.input_tokens, low=0, high=MAX_TOKENS),
        output_tokens=fields.number("output_tokens", request.output_tokens, low=0, high=MAX_TOKENS),
        latency_ms=fields.number("latency_ms", request.latency_ms, low=0, high=MAX_LATENCY_MS)
        if request.HasField("latency_ms")
        else None,
        succeeded=not FAILED.get(request.status),
        error_message=request.error_message.replace("\0", "")[:MAX_ERROR_CHARS] or None,
        decision_id=fields.optional_uuid("decision_id", request.decision_id),
        payer=PAYERS.get(request.payer),
        occurred_at=_moment(fields, request.occurred_at, now) if request.HasField("occurred_at") else now,
    )
    fields.done()
    return report


def _moment(fields: Fields, value: Timestamp, now: datetime) -> datetime:
    try:
        moment = value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        fields.wrong("occurred_at", "must be a moment in time")
        return now
    if not now - MAX_AGE <= moment <= now + CLOCK_SKEW:
        fields.wrong("occurred_at", "must be at most 30 days ago and not in the future")
    return moment


def _period(request: usage_service_pb2.GetUsageRequest, today: date) -> tuple[date, date]:
    fields = Fields()
    if not request.start_date and not request.end_date:
        days = request.days if request.HasField("days") else DEFAULT_DAYS
        fields.number("days", days, low=1, high=MAX_DAYS)
        fields.done()
        return today - timedelta(days=days - 1), today
    if request.HasField("days"):
        fields.wrong("days", "cannot go together with start_date and end_date")
    first = _day(fields, "start_date", request.start_date)
    last = _day(fields, "end_date", request.end_date)
    if first and last and not 0 <= (last - first).days < MAX_DAYS:
        fields.wrong("end_date", f"must be start_date or later, at most {MAX_DAYS} days in all")
    fields.done()
    return first or today, last or today


def _day(fields: Fields, path: str, value: str) -> date | None:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    fields.wrong(path, "must be a day like 2026-01-31" if value else "is required together with the other one")
    return None


def _usage(user_id: UUID, first: date, last: date, sums: Iterable[UsageSum]) -> usage_service_pb2.GetUsageResponse:
    rows = list(sums)
    by_provider: dict[str, list[UsageSum]] = {}
    for row in rows:
        by_provider.setdefault(row.provider_name, []).append(row)
    return usage_service_pb2.GetUsageResponse(
        user_id=str(user_id),
        period_start=timestamp(datetime.combine(first, time(), UTC)),
        period_end=timestamp(datetime.combine(last, time(23, 59, 59), UTC)),
        total_requests=sum(row.requests for row in rows),
        total_input_tokens=sum(row.input_tokens for row in rows),
        total_output_tokens=sum(row.output_tokens for row in rows),
        total_cost_usd=_dollars(rows),
        failed_requests=sum(row.failed_requests for row in rows),
        by_provider={name: _provider_usage(of_provider) for name, of_provider in by_provider.items()},
        by_power_level={
            level.name: _level_usage([row for row in rows if row.power_level == level.name]) for level in PowerLevel
        },
    )


def _provider_usage(rows: list[UsageSum]) -> usage_pb2.ProviderUsage:
    timed = sum(row.latency_count for row in rows)
    return usage_pb2.ProviderUsage(
        requests=sum(row.requests for row in rows),
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cost_usd=_dollars(rows),
        avg_latency_ms=round(sum(row.latency_ms_sum for row in rows) / timed) if timed else 0,
        failed_requests=sum(row.failed_requests for row in rows),
    )


def _level_usage(rows: list[UsageSum]) -> usage_pb2.PowerLevelUsage:
    return usage_pb2.PowerLevelUsage(
        requests=sum(row.requests for row in rows),
        cost_usd=_dollars(rows),
        failed_requests=sum(row.failed_requests for row in rows),
    )


def _dollars(rows: Iterable[UsageSum]) -> float:
    return float(sum((row.cost_usd for row in rows), Decimal(0)))
