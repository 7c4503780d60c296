"""UsageService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from google.api.httpbody_pb2 import HttpBody

from llmrouter.aio_calls import async_contents
from llmrouter.calls import contents
from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.power_level_pb2 import PowerLevel
from llmrouter.v2.usage_pb2 import AttemptFailure, Payer, UsageStatus
from llmrouter.v2.usage_service_pb2 import (
    BatchRecordUsageRequest,
    BatchRecordUsageResponse,
    ExportUsageRequest,
    GetUsageRequest,
    GetUsageResponse,
    ListUsageBucketsRequest,
    ListUsageBucketsResponse,
    ListUsageRecordsRequest,
    ListUsageRecordsResponse,
    RecordUsageRequest,
    RecordUsageResponse,
)
from llmrouter.values import timestamp_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterable
    from datetime import datetime

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers
    from llmrouter.v2.usage_pb2 import UsageBucket, UsageRecord

_SERVICE = "/llmrouter.v2.UsageService/"


class UsageService:
    """What was used and what it cost.

    Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.GetUsage = channel.unary(_SERVICE + "GetUsage", GetUsageRequest, GetUsageResponse)
        """As get_usage, with the messages of the protos."""
        self.ListUsageBuckets = channel.unary(
            _SERVICE + "ListUsageBuckets", ListUsageBucketsRequest, ListUsageBucketsResponse
        )
        """As list_usage_buckets, with the messages of the protos."""
        self.ListUsageRecords = channel.unary(
            _SERVICE + "ListUsageRecords", ListUsageRecordsRequest, ListUsageRecordsResponse
        )
        """As list_usage_records, with the messages of the protos."""
        self.ExportUsage = channel.stream(_SERVICE + "ExportUsage", ExportUsageRequest, HttpBody)
        """As export_usage, with the messages of the protos."""
        self.RecordUsage = channel.unary(_SERVICE + "RecordUsage", RecordUsageRequest, RecordUsageResponse)
        """As record_usage, with the messages of the protos."""
        self.BatchRecordUsage = channel.unary(
            _SERVICE + "BatchRecordUsage", BatchRecordUsageRequest, BatchRecordUsageResponse
        )
        """As batch_record_usage, with the messages of the protos."""

    def get_usage(
        self,
        *,
        days: int | None = None,
        start_date: str = "",
        end_date: str = "",
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> GetUsageResponse:
        """Sums the usage of the last N UTC days, today included, or of a range of days.

        For every user, for themselves; the role service names the user.

        Errors: INVALID_FIELD; ROLE_REQUIRED when a user names another user.

        days: The last so many UTC days, today included, 1 to 365. Default 30. Not together with start_date or
            end_date.
        start_date: First UTC day, as YYYY-MM-DD. Needs end_date.
        end_date: Last UTC day, as YYYY-MM-DD, at most 365 days in all. Needs start_date.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """
        request = GetUsageRequest(days=days, start_date=start_date, end_date=end_date, user_id=user_id)
        return self.GetUsage(request, timeout=timeout, metadata=headers)

    def list_usage_buckets(
        self,
        *,
        granularity: str = "",
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[UsageBucket, ListUsageBucketsResponse]:
        """Sums the usage of each hour or day of a period, oldest first, hours and days without any usage
        included.

        For every user, for themselves; the role service names the user.

        Errors: INVALID_FIELD; ROLE_REQUIRED when a user names another user.

        granularity: `day` (UTC) or `hour`. Default `day`.
        start_date: First UTC day, as YYYY-MM-DD; by hour at most 62 days ago. Default: 30 days by day, or 2
            days by hour, ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all by day, 31 by hour.
        provider_id: Only usage of this provider, a UUID. Default: all.
        model_id: Only usage of this model, a UUID. Default: all.
        power_level: Only usage at this power level. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """

        def fetch(_: str) -> ListUsageBucketsResponse:
            request = ListUsageBucketsRequest(
                granularity=granularity,
                start_date=start_date,
                end_date=end_date,
                provider_id=provider_id,
                model_id=model_id,
                power_level=power_level,
                user_id=user_id,
            )
            return self.ListUsageBuckets(request, timeout=timeout, metadata=headers)

        return Pages(fetch, "", lambda page: page.buckets, lambda _: "")

    def list_usage_records(
        self,
        *,
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        user_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[UsageRecord, ListUsageRecordsResponse]:
        """Lists single attempts, newest first.

        Records are kept for as long as the operator has set (`USAGE_RETENTION_DAYS`).

        For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED
        when a user names another user.

        start_date: First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all.
        provider_id: Only records of this provider, a UUID. Default: all.
        model_id: Only records of this model, a UUID. Default: all.
        power_level: Only records at this power level. Default: all.
        status: Only successes or only errors. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        page_size: The most records in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListUsageRecordsResponse:
            request = ListUsageRecordsRequest(
                start_date=start_date,
                end_date=end_date,
                provider_id=provider_id,
                model_id=model_id,
                power_level=power_level,
                status=status,
                user_id=user_id,
                page_size=page_size,
                page_token=token,
            )
            return self.ListUsageRecords(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.records, lambda page: page.next_page_token)

    def export_usage(
        self,
        *,
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Generator[bytes, None, None]:
        """Streams the attempts of a period as CSV (RFC 4180, UTF-8, with a header), newest first.

        A text that a spreadsheet would take for a formula has an apostrophe before it. An export that cannot be
        completed ends with a row that says so.

        For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED
        when a user names another user.

        start_date: First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all.
        provider_id: Only records of this provider, a UUID. Default: all.
        model_id: Only records of this model, a UUID. Default: all.
        power_level: Only records at this power level. Default: all.
        status: Only successes or only errors. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """
        request = ExportUsageRequest(
            start_date=start_date,
            end_date=end_date,
            provider_id=provider_id,
            model_id=model_id,
            power_level=power_level,
            status=status,
            user_id=user_id,
        )
        return contents(self.ExportUsage(request, timeout=timeout, metadata=headers))

    def record_usage(
        self,
        *,
        user_id: str,
        request_id: str,
        model_id: str,
        input_tokens: int = 0,
        output_tokens: int = 0,
        latency_ms: int | None = None,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        error_message: str = "",
        decision_id: str = "",
        payer: Payer.ValueType = Payer.PAYER_UNSPECIFIED,
        occurred_at: datetime | None = None,
        failure: AttemptFailure.ValueType = AttemptFailure.ATTEMPT_FAILURE_UNSPECIFIED,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        is_estimated: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RecordUsageResponse:
        """Records one attempt at a provider.

        Acknowledged only when it is stored; recording the same request_id of the same user again within 30
        days, with whatever figures, stores nothing and returns the first record's answer.

        Needs the role service; over gRPC only. Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such
        model; ROLE_REQUIRED.

        user_id: UUID of the user who used it.
        request_id: The caller's own id of the attempt, 1 to 128 printable ASCII characters without spaces,
            unique for each user: makes recording safe to repeat.
        model_id: UUID of the model that was used.
        input_tokens: Input tokens, 0 to 1,000,000,000.
        output_tokens: Output tokens, 0 to 1,000,000,000.
        latency_ms: How long the answer took, in milliseconds, at most 86,400,000. Absent: not known.
        status: Default success.
        error_message: What went wrong, at most 1000 characters; longer ones are cut. Never put a credential
            here.
        decision_id: UUID of the routing decision it followed. Default none.
        payer: Whose key paid.
        occurred_at: When it happened, at most 30 days ago and not in the future. Default now.
        failure: Why it failed; only together with an ERROR status. It feeds the provider's health.
        cached_tokens: Those of the input tokens that the provider had in its cache, 0 to input_tokens. They
            cost what all input does.
        reasoning_tokens: Those of the output tokens that went into reasoning, 0 to output_tokens.
        is_estimated: True when the tokens are an estimate, because the answer did not tell them. Default false.
        """
        request = RecordUsageRequest(
            user_id=user_id,
            request_id=request_id,
            model_id=model_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            latency_ms=latency_ms,
            status=status,
            error_message=error_message,
            decision_id=decision_id,
            payer=payer,
            occurred_at=timestamp_of(occurred_at),
            failure=failure,
            cached_tokens=cached_tokens,
            reasoning_tokens=reasoning_tokens,
            is_estimated=is_estimated,
        )
        return self.RecordUsage(request, timeout=timeout, metadata=headers)

    def batch_record_usage(
        self, records: Iterable[RecordUsageRequest], *, timeout: float | None = None, headers: Headers | None = None
    ) -> BatchRecordUsageResponse:
        """Records up to 1000 attempts, each as RecordUsage does.

        Each has a result of its own: one that is refused takes no other with it.

        Needs the role service; over gRPC only. Errors: INVALID_FIELD for no records or too many; ROLE_REQUIRED;
        UNAVAILABLE when any could not be stored: send them all again, none counts twice.

        records: The attempts, 1 to 1000.
        """
        request = BatchRecordUsageRequest(records=records)
        return self.BatchRecordUsage(request, timeout=timeout, metadata=headers)


class AsyncUsageService:
    """What was used and what it cost.

    Every RPC can also fail with UNAUTHENTICATED, UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.GetUsage = channel.unary(_SERVICE + "GetUsage", GetUsageRequest, GetUsageResponse)
        """As get_usage, with the messages of the protos."""
        self.ListUsageBuckets = channel.unary(
            _SERVICE + "ListUsageBuckets", ListUsageBucketsRequest, ListUsageBucketsResponse
        )
        """As list_usage_buckets, with the messages of the protos."""
        self.ListUsageRecords = channel.unary(
            _SERVICE + "ListUsageRecords", ListUsageRecordsRequest, ListUsageRecordsResponse
        )
        """As list_usage_records, with the messages of the protos."""
        self.ExportUsage = channel.stream(_SERVICE + "ExportUsage", ExportUsageRequest, HttpBody)
        """As export_usage, with the messages of the protos."""
        self.RecordUsage = channel.unary(_SERVICE + "RecordUsage", RecordUsageRequest, RecordUsageResponse)
        """As record_usage, with the messages of the protos."""
        self.BatchRecordUsage = channel.unary(
            _SERVICE + "BatchRecordUsage", BatchRecordUsageRequest, BatchRecordUsageResponse
        )
        """As batch_record_usage, with the messages of the protos."""

    async def get_usage(
        self,
        *,
        days: int | None = None,
        start_date: str = "",
        end_date: str = "",
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> GetUsageResponse:
        """Sums the usage of the last N UTC days, today included, or of a range of days.

        For every user, for themselves; the role service names the user.

        Errors: INVALID_FIELD; ROLE_REQUIRED when a user names another user.

        days: The last so many UTC days, today included, 1 to 365. Default 30. Not together with start_date or
            end_date.
        start_date: First UTC day, as YYYY-MM-DD. Needs end_date.
        end_date: Last UTC day, as YYYY-MM-DD, at most 365 days in all. Needs start_date.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """
        request = GetUsageRequest(days=days, start_date=start_date, end_date=end_date, user_id=user_id)
        return await self.GetUsage(request, timeout=timeout, metadata=headers)

    def list_usage_buckets(
        self,
        *,
        granularity: str = "",
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[UsageBucket, ListUsageBucketsResponse]:
        """Sums the usage of each hour or day of a period, oldest first, hours and days without any usage
        included.

        For every user, for themselves; the role service names the user.

        Errors: INVALID_FIELD; ROLE_REQUIRED when a user names another user.

        granularity: `day` (UTC) or `hour`. Default `day`.
        start_date: First UTC day, as YYYY-MM-DD; by hour at most 62 days ago. Default: 30 days by day, or 2
            days by hour, ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all by day, 31 by hour.
        provider_id: Only usage of this provider, a UUID. Default: all.
        model_id: Only usage of this model, a UUID. Default: all.
        power_level: Only usage at this power level. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """

        async def fetch(_: str) -> ListUsageBucketsResponse:
            request = ListUsageBucketsRequest(
                granularity=granularity,
                start_date=start_date,
                end_date=end_date,
                provider_id=provider_id,
                model_id=model_id,
                power_level=power_level,
                user_id=user_id,
            )
            return await self.ListUsageBuckets(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, "", lambda page: page.buckets, lambda _: "")

    def list_usage_records(
        self,
        *,
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        user_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[UsageRecord, ListUsageRecordsResponse]:
        """Lists single attempts, newest first.

        Records are kept for as long as the operator has set (`USAGE_RETENTION_DAYS`).

        For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED
        when a user names another user.

        start_date: First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all.
        provider_id: Only records of this provider, a UUID. Default: all.
        model_id: Only records of this model, a UUID. Default: all.
        power_level: Only records at this power level. Default: all.
        status: Only successes or only errors. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        page_size: The most records in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListUsageRecordsResponse:
            request = ListUsageRecordsRequest(
                start_date=start_date,
                end_date=end_date,
                provider_id=provider_id,
                model_id=model_id,
                power_level=power_level,
                status=status,
                user_id=user_id,
                page_size=page_size,
                page_token=token,
            )
            return await self.ListUsageRecords(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.records, lambda page: page.next_page_token)

    def export_usage(
        self,
        *,
        start_date: str = "",
        end_date: str = "",
        provider_id: str = "",
        model_id: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        user_id: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Streams the attempts of a period as CSV (RFC 4180, UTF-8, with a header), newest first.

        A text that a spreadsheet would take for a formula has an apostrophe before it. An export that cannot be
        completed ends with a row that says so.

        For every user, for themselves; the role service names the user. Errors: INVALID_FIELD; ROLE_REQUIRED
        when a user names another user.

        start_date: First UTC day, as YYYY-MM-DD. Default: 30 days ending with end_date.
        end_date: Last UTC day, as YYYY-MM-DD. Default today. At most 365 days in all.
        provider_id: Only records of this provider, a UUID. Default: all.
        model_id: Only records of this model, a UUID. Default: all.
        power_level: Only records at this power level. Default: all.
        status: Only successes or only errors. Default: all.
        user_id: UUID of the user: required from the role service; else absent, or the caller's own.
        """
        request = ExportUsageRequest(
            start_date=start_date,
            end_date=end_date,
            provider_id=provider_id,
            model_id=model_id,
            power_level=power_level,
            status=status,
            user_id=user_id,
        )
        return async_contents(self.ExportUsage(request, timeout=timeout, metadata=headers))

    async def record_usage(
        self,
        *,
        user_id: str,
        request_id: str,
        model_id: str,
        input_tokens: int = 0,
        output_tokens: int = 0,
        latency_ms: int | None = None,
        status: UsageStatus.ValueType = UsageStatus.USAGE_STATUS_UNSPECIFIED,
        error_message: str = "",
        decision_id: str = "",
        payer: Payer.ValueType = Payer.PAYER_UNSPECIFIED,
        occurred_at: datetime | None = None,
        failure: AttemptFailure.ValueType = AttemptFailure.ATTEMPT_FAILURE_UNSPECIFIED,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
        is_estimated: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RecordUsageResponse:
        """Records one attempt at a provider.

        Acknowledged only when it is stored; recording the same request_id of the same user again within 30
        days, with whatever figures, stores nothing and returns the first record's answer.

        Needs the role service; over gRPC only. Errors: INVALID_FIELD; RESOURCE_NOT_FOUND when there is no such
        model; ROLE_REQUIRED.

        user_id: UUID of the user who used it.
        request_id: The caller's own id of the attempt, 1 to 128 printable ASCII characters without spaces,
            unique for each user: makes recording safe to repeat.
        model_id: UUID of the model that was used.
        input_tokens: Input tokens, 0 to 1,000,000,000.
        output_tokens: Output tokens, 0 to 1,000,000,000.
        latency_ms: How long the answer took, in milliseconds, at most 86,400,000. Absent: not known.
        status: Default success.
        error_message: What went wrong, at most 1000 characters; longer ones are cut. Never put a credential
            here.
        decision_id: UUID of the routing decision it followed. Default none.
        payer: Whose key paid.
        occurred_at: When it happened, at most 30 days ago and not in the future. Default now.
        failure: Why it failed; only together with an ERROR status. It feeds the provider's health.
        cached_tokens: Those of the input tokens that the provider had in its cache, 0 to input_tokens. They
            cost what all input does.
        reasoning_tokens: Those of the output tokens that went into reasoning, 0 to output_tokens.
        is_estimated: True when the tokens are an estimate, because the answer did not tell them. Default false.
        """
        request = RecordUsageRequest(
            user_id=user_id,
            request_id=request_id,
            model_id=model_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            latency_ms=latency_ms,
            status=status,
            error_message=error_message,
            decision_id=decision_id,
            payer=payer,
            occurred_at=timestamp_of(occurred_at),
            failure=failure,
            cached_tokens=cached_tokens,
            reasoning_tokens=reasoning_tokens,
            is_estimated=is_estimated,
        )
        return await self.RecordUsage(request, timeout=timeout, metadata=headers)

    async def batch_record_usage(
        self, records: Iterable[RecordUsageRequest], *, timeout: float | None = None, headers: Headers | None = None
    ) -> BatchRecordUsageResponse:
        """Records up to 1000 attempts, each as RecordUsage does.

        Each has a result of its own: one that is refused takes no other with it.

        Needs the role service; over gRPC only. Errors: INVALID_FIELD for no records or too many; ROLE_REQUIRED;
        UNAVAILABLE when any could not be stored: send them all again, none counts twice.

        records: The attempts, 1 to 1000.
        """
        request = BatchRecordUsageRequest(records=records)
        return await self.BatchRecordUsage(request, timeout=timeout, metadata=headers)
