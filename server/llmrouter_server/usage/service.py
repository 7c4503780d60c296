"""The door of usage: UsageService."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING

from google.api import httpbody_pb2

from llmrouter.v2 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from llmrouter_server import errors
from llmrouter_server.catalog.power_level import power_level_message
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.runtime.interceptor import current_caller
from llmrouter_server.runtime.messages import timestamp
from llmrouter_server.usage.analytics import each_day, each_hour
from llmrouter_server.usage.export import CONTENT_TYPE, PAGE_ROWS, Line, export
from llmrouter_server.usage.period import read_last_days
from llmrouter_server.usage.record import SUCCESS, USER_KEY, Receipt, Report
from llmrouter_server.usage.requests import (
    page_token,
    read_bucket_period,
    read_filters,
    read_only,
    read_place,
    read_report,
    read_report_or_refusal,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from llmrouter_server.runtime.interceptor import Context
    from llmrouter_server.usage.period import Period
    from llmrouter_server.usage.record import StoredRecord
    from llmrouter_server.usage.recorder import UsageRecorder
    from llmrouter_server.usage.requests import Place
    from llmrouter_server.usage.rollup import Sum, UsageSum
    from llmrouter_server.usage.store import UsageStore

MAX_BATCH = 1000
EXPORT_S = 240.0
"""How long an export may take: less than any stream may."""
LAST_WORDS_S = 2.0


class UsageService(usage_service_pb2_grpc.UsageServiceServicer):
    """Usage: users read their own, services record it."""

    def __init__(
        self,
        store: UsageStore,
        recorder: UsageRecorder,
        now: Callable[[], datetime],
        leaves_at: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`leaves_at` tells when this process will end what is not done by then, in the loop's time."""
        self._store, self._recorder, self._now, self._leaves_at = store, recorder, now, leaves_at
        self._line = Line()

    async def GetUsage(
        self, request: usage_service_pb2.GetUsageRequest, _context: Context
    ) -> usage_service_pb2.GetUsageResponse:
        user_id = current_caller().acts_for(request.user_id)
        period = read_last_days(request, self._today())
        return _usage(user_id, period, await self._store.sums(user_id, period.first, period.last))

    async def ListUsageBuckets(
        self, request: usage_service_pb2.ListUsageBucketsRequest, _context: Context
    ) -> usage_service_pb2.ListUsageBucketsResponse:
        user_id = current_caller().acts_for(request.user_id)
        fields = Fields()
        by_hour = fields.one_of("granularity", request.granularity or "day", ("day", "hour")) == "hour"
        period = read_bucket_period(fields, request, self._today(), by_hour=by_hour)
        only = read_only(fields, request)
        fields.done()
        if by_hour:
            buckets = each_hour(period, await self._store.hours(user_id, period, only))
        else:
            buckets = each_day(period, await self._store.days(user_id, period, only))
        return usage_service_pb2.ListUsageBucketsResponse(buckets=[_bucket(start, total) for start, total in buckets])

    async def ListUsageRecords(
        self, request: usage_service_pb2.ListUsageRecordsRequest, _context: Context
    ) -> usage_service_pb2.ListUsageRecordsResponse:
        user_id = current_caller().acts_for(request.user_id)
        fields = Fields()
        period, only, status = read_filters(fields, request, self._today())
        size = fields.page_size(request.page_size)
        before = read_place(fields, request.page_token)
        fields.done()
        found = await self._store.records(user_id, period, only, status=status, before=before, limit=size + 1)
        page = found[:size]
        return usage_service_pb2.ListUsageRecordsResponse(
            records=[_record(record) for record in page],
            next_page_token=page_token(page[-1]) if len(found) > size else "",
        )

    async def ExportUsage(
        self, request: usage_service_pb2.ExportUsageRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        user_id = current_caller().acts_for(request.user_id)
        fields = Fields()
        period, only, status = read_filters(fields, request, self._today())
        fields.done()

        # Nobody would see that a stream broke off, once it is JSON's: it must have time left to say so itself.
        ends_at = asyncio.get_running_loop().time() + min(EXPORT_S, context.time_remaining() or EXPORT_S)

        async def read(before: Place | None) -> Sequence[StoredRecord]:
            last_words_at = min(ends_at, self._leaves_at()) - LAST_WORDS_S
            async with asyncio.timeout_at(last_words_at if before else None), self._line.reading(user_id):
                return await self._store.records(user_id, period, only, status=status, before=before, limit=PAGE_ROWS)

        name = f"llmrouter-usage-{period.first}-{period.last}.csv"
        is_first = True
        async for chunk in export(read, self._line.writing):
            if is_first:
                await context.send_initial_metadata((("content-disposition", f'attachment; filename="{name}"'),))
                is_first = False
            yield httpbody_pb2.HttpBody(content_type=CONTENT_TYPE, data=chunk)

    async def RecordUsage(
        self, request: usage_service_pb2.RecordUsageRequest, _context: Context
    ) -> usage_service_pb2.RecordUsageResponse:
        receipt = await self._recorder.record(read_report(request, self._now()))
        response = usage_service_pb2.RecordUsageResponse()
        _fill(response, receipt)
        return response

    async def BatchRecordUsage(
        self, request: usage_service_pb2.BatchRecordUsageRequest, _context: Context
    ) -> usage_service_pb2.BatchRecordUsageResponse:
        if not 1 <= len(request.records) <= MAX_BATCH:
            raise errors.invalid(("records", f"must be 1 to {MAX_BATCH} records, not {len(request.records)}"))
        now = self._now()
        read = [read_report_or_refusal(record, now) for record in request.records]
        stored = iter(await self._recorder.record_all([report for report in read if isinstance(report, Report)]))
        response = usage_service_pb2.BatchRecordUsageResponse()
        for report in read:
            _fill_result(response.results.add(), next(stored) if isinstance(report, Report) else report)
        return response

    def _today(self) -> date:
        return self._now().astimezone(UTC).date()


def _usage(user_id: UUID, period: Period, sums: Iterable[UsageSum]) -> usage_service_pb2.GetUsageResponse:
    rows = list(sums)
    by_provider: dict[str, list[UsageSum]] = {}
    for row in rows:
        by_provider.setdefault(row.provider_name, []).append(row)
    return usage_service_pb2.GetUsageResponse(
        user_id=str(user_id),
        period_start=timestamp(period.start),
        period_end=timestamp(period.end.replace(microsecond=0)),
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


def _bucket(start: datetime, total: Sum) -> usage_pb2.UsageBucket:
    return usage_pb2.UsageBucket(
        start=timestamp(start),
        requests=total.requests,
        failed_requests=total.failed_requests,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cost_usd=float(total.cost_usd),
        avg_latency_ms=total.mean_latency_ms,
    )


def _record(record: StoredRecord) -> usage_pb2.UsageRecord:
    return usage_pb2.UsageRecord(
        usage_id=str(record.usage_id),
        request_id=record.request_id,
        occurred_at=timestamp(record.occurred_at),
        provider_id=str(record.provider_id),
        provider_name=record.provider_name,
        model_id=str(record.model_id),
        model_name=record.model_name,
        power_level=power_level_message(PowerLevel[record.power_level]),
        payer=usage_pb2.PAYER_USER_KEY if record.payer == USER_KEY else usage_pb2.PAYER_PLATFORM,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cost_usd=float(record.cost_usd),
        latency_ms=record.latency_ms,
        status=usage_pb2.USAGE_STATUS_SUCCESS if record.status == SUCCESS else usage_pb2.USAGE_STATUS_ERROR,
        failure=_failure_message(record.failure),
        error_message=record.error_message or "",
        decision_id=str(record.decision_id or ""),
        cached_tokens=record.cached_tokens,
        reasoning_tokens=record.reasoning_tokens,
        is_estimated=record.is_estimated,
    )


def _failure_message(name: str | None) -> usage_pb2.AttemptFailure.ValueType:
    return usage_pb2.AttemptFailure.Value(f"ATTEMPT_FAILURE_{name or 'UNSPECIFIED'}")


def _fill(recorded: usage_service_pb2.RecordUsageResponse, receipt: Receipt) -> None:
    """Fill in a message that is where it belongs already: one that is put there later is copied."""
    recorded.usage_id = str(receipt.usage_id)
    recorded.cost_usd = float(receipt.cost_usd)
    recorded.is_duplicate = receipt.is_duplicate


def _fill_result(result: usage_service_pb2.BatchRecordUsageResult, outcome: Receipt | errors.DomainError) -> None:
    if isinstance(outcome, Receipt):
        _fill(result.recorded, outcome)
    else:
        result.refused.reason, result.refused.message = outcome.reason, outcome.message
