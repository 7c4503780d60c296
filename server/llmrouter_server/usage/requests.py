"""Reads what requests about usage say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias, cast
from uuid import UUID

import uuid_utils
from asyncpg.pgproto import pgproto

from llmrouter.v2 import usage_pb2
from llmrouter_server import errors
from llmrouter_server.catalog.power_level import read_power_level
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.usage.period import DEFAULT_DAYS, MAX_DAYS, Period, read_period
from llmrouter_server.usage.record import ERROR, PLATFORM, SUCCESS, USER_KEY, Failure, Report
from llmrouter_server.usage.rollup import HOURLY_DAYS, Only

if TYPE_CHECKING:
    from datetime import date

    from google.protobuf.timestamp_pb2 import Timestamp

    from llmrouter.v2 import usage_service_pb2
    from llmrouter_server.usage.record import StoredRecord

MAX_TOKENS = 1_000_000_000
MAX_LATENCY_MS = 86_400_000
MAX_ERROR_CHARS = 1000
MAX_AGE = timedelta(days=30)
CLOCK_SKEW = timedelta(minutes=5)
DEFAULT_DAYS_BY_HOUR = 2
MAX_DAYS_BY_HOUR = 31
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
PAYERS = {usage_pb2.PAYER_UNSPECIFIED: None, usage_pb2.PAYER_USER_KEY: USER_KEY, usage_pb2.PAYER_PLATFORM: PLATFORM}
STATUSES = {
    usage_pb2.USAGE_STATUS_UNSPECIFIED: None,
    usage_pb2.USAGE_STATUS_SUCCESS: SUCCESS,
    usage_pb2.USAGE_STATUS_ERROR: ERROR,
}
Place: TypeAlias = "tuple[datetime, UUID]"
"""Where a page begins: after the record that happened then and has this id."""
ListRequest: TypeAlias = "usage_service_pb2.ListUsageRecordsRequest | usage_service_pb2.ExportUsageRequest"


def read_report_or_refusal(request: usage_service_pb2.RecordUsageRequest, now: datetime) -> Report | errors.DomainError:
    """Read one of many reports; what is wrong with it is returned."""
    try:
        return read_report(request, now)
    except errors.DomainError as error:
        return error


def read_report(request: usage_service_pb2.RecordUsageRequest, now: datetime) -> Report:
    """Read a report that came at `now`; INVALID_FIELD names everything that is wrong with it."""
    fields = Fields()
    if not REQUEST_ID.fullmatch(request.request_id):
        fields.wrong("request_id", "must be 1 to 128 printable ASCII characters without spaces")
    if request.payer not in PAYERS:
        fields.wrong("payer", "must be PAYER_USER_KEY or PAYER_PLATFORM")
    status = _status(fields, request.status)
    report = Report(
        usage_id=pgproto.UUID(uuid_utils.uuid7().bytes),
        user_id=fields.uuid("user_id", request.user_id),
        request_id=request.request_id,
        model_id=fields.uuid("model_id", request.model_id),
        input_tokens=fields.number("input_tokens", request.input_tokens, low=0, high=MAX_TOKENS),
        output_tokens=fields.number("output_tokens", request.output_tokens, low=0, high=MAX_TOKENS),
        latency_ms=fields.number("latency_ms", request.latency_ms, low=0, high=MAX_LATENCY_MS)
        if request.HasField("latency_ms")
        else None,
        succeeded=status != ERROR,
        failure=_failure(fields, request.failure, status),
        error_message=request.error_message.replace("\0", "")[:MAX_ERROR_CHARS] or None,
        decision_id=fields.optional_uuid("decision_id", request.decision_id),
        payer=PAYERS.get(request.payer),
        occurred_at=_moment(fields, request.occurred_at, now) if request.HasField("occurred_at") else now,
        cached_tokens=_part(fields, "cached_tokens", request.cached_tokens, "input_tokens", request.input_tokens),
        reasoning_tokens=_part(
            fields, "reasoning_tokens", request.reasoning_tokens, "output_tokens", request.output_tokens
        ),
        is_estimated=request.is_estimated,
    )
    fields.done()
    return report


def _part(fields: Fields, path: str, value: int, whole_path: str, whole: int) -> int:
    if value > whole:
        fields.wrong(path, f"must be at most {whole_path} ({whole}), not {value}")
    return value


def _status(fields: Fields, value: usage_pb2.UsageStatus.ValueType) -> str | None:
    if value not in STATUSES:
        fields.wrong("status", "must be USAGE_STATUS_SUCCESS or USAGE_STATUS_ERROR")
    return STATUSES.get(value)


def _failure(fields: Fields, value: int, status: str | None) -> Failure | None:
    if value == usage_pb2.ATTEMPT_FAILURE_UNSPECIFIED:
        return None
    if status != ERROR:
        fields.wrong("failure", "goes only together with USAGE_STATUS_ERROR")
    try:
        return Failure(value)
    except ValueError:
        fields.wrong("failure", "must be one of AttemptFailure")
        return None


def _moment(fields: Fields, value: Timestamp, now: datetime) -> datetime:
    try:
        moment = value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        fields.wrong("occurred_at", "must be a moment in time")
        return now
    if not now - MAX_AGE <= moment <= now + CLOCK_SKEW:
        fields.wrong("occurred_at", "must be at most 30 days ago and not in the future")
    return moment


def read_bucket_period(
    fields: Fields, request: usage_service_pb2.ListUsageBucketsRequest, today: date, *, by_hour: bool
) -> Period:
    """Read the period of buckets: shorter by hour, and no longer ago than hourly sums are kept."""
    default, most = (DEFAULT_DAYS_BY_HOUR, MAX_DAYS_BY_HOUR) if by_hour else (DEFAULT_DAYS, MAX_DAYS)
    period = read_period(fields, request.start_date, request.end_date, today, default_days=default, most_days=most)
    if by_hour and period.first < today - timedelta(days=HOURLY_DAYS):
        fields.wrong("start_date", f"must be at most {HOURLY_DAYS} days ago by hour")
    return period


def read_filters(fields: Fields, request: ListRequest, today: date) -> tuple[Period, Only, str | None]:
    """Read which records are asked for: of which days, of what, and with which status."""
    period = read_period(fields, request.start_date, request.end_date, today)
    return period, read_only(fields, request), _status(fields, request.status)


def read_only(fields: Fields, request: ListRequest | usage_service_pb2.ListUsageBucketsRequest) -> Only:
    """Read of which provider, model and power level usage is asked for."""
    level = read_power_level(fields, "power_level", request.power_level)
    return Only(
        provider_id=fields.optional_uuid("provider_id", request.provider_id),
        model_id=fields.optional_uuid("model_id", request.model_id),
        power_level=level.name if level else None,
    )


def read_place(fields: Fields, token: str) -> Place | None:
    """Read where a page begins; nothing for the first page."""
    keys = cast("tuple[int, str] | None", fields.page_token(token, int, str))
    if keys is None:
        return None
    try:
        return EPOCH + keys[0] * MICROSECOND, UUID(keys[1])
    except (ValueError, OverflowError):
        fields.wrong("page_token", "is not one that this list returned")
        return None


def page_token(record: StoredRecord) -> str:
    """Make the page token for everything after this record."""
    return next_page_token((record.occurred_at - EPOCH) // MICROSECOND, str(record.usage_id))
