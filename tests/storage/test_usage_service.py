"""The usage service behind a real gRPC server and the real interceptor; only who calls is made up."""

from __future__ import annotations

import asyncio
import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from custody import StubContext, calling
from llmrouter.v2 import usage_service_pb2_grpc
from llmrouter.v2.power_level_pb2 import ECO
from llmrouter.v2.usage_pb2 import (
    ATTEMPT_FAILURE_TIMEOUT,
    ATTEMPT_FAILURE_UNSPECIFIED,
    PAYER_PLATFORM,
    USAGE_STATUS_ERROR,
    USAGE_STATUS_SUCCESS,
)
from llmrouter.v2.usage_service_pb2 import (
    BatchRecordUsageRequest,
    ExportUsageRequest,
    GetUsageRequest,
    ListUsageBucketsRequest,
    ListUsageRecordsRequest,
    RecordUsageRequest,
)
from llmrouter_server.runtime.auth import Caller, Role
from llmrouter_server.runtime.fields import next_page_token
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor
from llmrouter_server.usage import service as usage_service
from llmrouter_server.usage.export import HEADER, INCOMPLETE
from llmrouter_server.usage.service import UsageService
from usage_samples import model_ids, quiet_recorder, report, usage_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.auth import TokenVerifier
    from llmrouter_server.runtime.database import Database
    from llmrouter_server.runtime.interceptor import Context
    from llmrouter_server.usage.store import UsageStore

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
UNKNOWN = str(uuid.uuid4())


class MadeUp:
    """Takes `user UUID` or `service UUID` for a token."""

    async def verify(self, token: str) -> Caller:
        role, _, user_id = token.partition(" ")
        return Caller(uuid.UUID(user_id), frozenset({Role(role)}))


class Service(NamedTuple):
    stub: usage_service_pb2_grpc.UsageServiceAsyncStub
    store: UsageStore


@pytest.fixture(scope="module")
async def service(database: Database) -> AsyncIterator[Service]:
    store = usage_store(database)
    recorder = quiet_recorder(store)
    await recorder.start()
    calls: Any = CallInterceptor(cast("TokenVerifier", MadeUp()), longest_s=10)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(UsageService(store, recorder, lambda: NOW), calls)
    server = make_server(calls, reuse_port=False)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = cast("usage_service_pb2_grpc.UsageServiceAsyncStub", usage_service_pb2_grpc.UsageServiceStub(channel))
        yield Service(stub, store)
    await server.stop(0)
    await recorder.stop()


@pytest.fixture(scope="session")
async def model(database: Database) -> uuid.UUID:
    return (await model_ids(database))["gpt-4o"]


@pytest.fixture
def user() -> uuid.UUID:
    return uuid.uuid4()


def by(user: uuid.UUID, role: str = "user") -> dict[str, tuple[tuple[str, str], ...]]:
    return {"metadata": (("authorization", f"bearer {role} {user}"),)}


SERVICE = by(uuid.uuid4(), "service")


def recording(user: uuid.UUID, model: uuid.UUID, **fields: object) -> RecordUsageRequest:
    values = {"user_id": str(user), "request_id": str(uuid.uuid4()), "model_id": str(model), "input_tokens": 1000}
    return RecordUsageRequest(**(values | fields))


def wrong_fields(error: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> list[str]:
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    [encoded] = [value for key, value in error.value.trailing_metadata() or () if key == "grpc-status-details-bin"]
    bad = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(encoded).details:
        detail.Unpack(bad)
    return [violation.field for violation in bad.field_violations]


async def test_a_failure_is_recorded_with_its_reason(service: Service, user: uuid.UUID, model: uuid.UUID) -> None:
    told = recording(user, model, status=USAGE_STATUS_ERROR, failure=ATTEMPT_FAILURE_TIMEOUT, error_message="late")
    recorded = await service.stub.RecordUsage(told, **SERVICE)
    [record] = (await service.stub.ListUsageRecords(ListUsageRecordsRequest(), **by(user))).records
    assert (record.usage_id, record.request_id) == (recorded.usage_id, told.request_id)
    assert (record.status, record.failure, record.error_message) == (
        USAGE_STATUS_ERROR,
        ATTEMPT_FAILURE_TIMEOUT,
        "late",
    )
    assert (record.payer, record.model_name, record.cost_usd) == (PAYER_PLATFORM, "gpt-4o", 0.0025)
    assert not record.HasField("latency_ms")
    assert record.occurred_at.ToDatetime(UTC) == NOW


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"failure": ATTEMPT_FAILURE_TIMEOUT}, ["failure"]),
        ({"failure": ATTEMPT_FAILURE_TIMEOUT, "status": USAGE_STATUS_SUCCESS}, ["failure"]),
        ({"failure": 99, "status": USAGE_STATUS_ERROR}, ["failure"]),
        ({"status": 99}, ["status"]),
        (
            {"request_id": "two words", "model_id": "x", "input_tokens": 2**31},
            ["request_id", "model_id", "input_tokens"],
        ),
        ({"cached_tokens": 1001}, ["cached_tokens"]),
        ({"reasoning_tokens": 1}, ["reasoning_tokens"]),
        (
            {"output_tokens": 9, "cached_tokens": 2**32 - 1, "reasoning_tokens": 10},
            ["cached_tokens", "reasoning_tokens"],
        ),
    ],
)
async def test_a_report_that_makes_no_sense_is_refused(
    service: Service, user: uuid.UUID, model: uuid.UUID, fields: dict[str, object], wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.stub.RecordUsage(recording(user, model, **fields), **SERVICE)
    assert sorted(wrong_fields(error)) == sorted(wrong)


async def test_cached_and_reasoning_tokens_may_be_all_of_what_they_are_part_of_and_cost_the_same(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    told = recording(user, model, output_tokens=100, cached_tokens=1000, reasoning_tokens=100, is_estimated=True)
    assert (await service.stub.RecordUsage(told, **SERVICE)).cost_usd == 0.0035
    [record] = (await service.stub.ListUsageRecords(ListUsageRecordsRequest(), **by(user))).records
    assert (record.input_tokens, record.cached_tokens) == (1000, 1000)
    assert (record.output_tokens, record.reasoning_tokens) == (100, 100)
    assert record.is_estimated
    usage = await service.stub.GetUsage(GetUsageRequest(), **by(user))
    assert (usage.total_input_tokens, usage.total_output_tokens, usage.total_cost_usd) == (1000, 100, 0.0035)


async def test_who_says_too_many_cached_tokens_is_told_how_many_there_can_be(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    batch = BatchRecordUsageRequest(records=[recording(user, model, cached_tokens=1001), recording(user, model)])
    refused, recorded = (await service.stub.BatchRecordUsage(batch, **SERVICE)).results
    assert refused.refused.message == "cached_tokens: must be at most input_tokens (1000), not 1001"
    assert recorded.WhichOneof("outcome") == "recorded"


async def test_each_record_of_a_batch_has_a_result_of_its_own(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    first = recording(user, model)
    batch = [
        first,
        recording(user, model, request_id=""),
        recording(user, uuid.uuid4()),
        recording(user, model, request_id=first.request_id, input_tokens=9),
        recording(user, model, status=USAGE_STATUS_ERROR),
    ]
    answer = await service.stub.BatchRecordUsage(BatchRecordUsageRequest(records=batch), **SERVICE)
    outcomes = [result.WhichOneof("outcome") for result in answer.results]
    assert outcomes == ["recorded", "refused", "refused", "recorded", "recorded"]
    stored, unread, no_model, again, _ = answer.results
    assert (unread.refused.reason, no_model.refused.reason) == ("INVALID_FIELD", "RESOURCE_NOT_FOUND")
    assert unread.refused.message.startswith("request_id: must be")
    assert no_model.refused.message == "there is no such model"
    assert [stored.recorded.is_duplicate, again.recorded.is_duplicate] == [False, True]
    assert again.recorded.usage_id == stored.recorded.usage_id
    usage = await service.stub.GetUsage(GetUsageRequest(), **by(user))
    assert (usage.total_requests, usage.failed_requests) == (1, 1)
    repeated = await service.stub.BatchRecordUsage(BatchRecordUsageRequest(records=batch), **SERVICE)
    assert all(result.recorded.is_duplicate for result in repeated.results if result.HasField("recorded"))


async def test_a_batch_holds_1_to_1000_records(service: Service, user: uuid.UUID, model: uuid.UUID) -> None:
    for count in (0, 1001):
        batch = BatchRecordUsageRequest(records=[recording(user, model)] * count)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.stub.BatchRecordUsage(batch, **SERVICE)
        assert wrong_fields(error) == ["records"]
    full = BatchRecordUsageRequest(records=[recording(user, model) for _ in range(1000)])
    answer = await service.stub.BatchRecordUsage(full, **SERVICE)
    assert len({result.recorded.usage_id for result in answer.results}) == 1000
    refused_all = BatchRecordUsageRequest(records=[RecordUsageRequest()])
    assert (await service.stub.BatchRecordUsage(refused_all, **SERVICE)).results[0].refused.reason == "INVALID_FIELD"


async def test_buckets_have_every_day_and_hour_of_the_period(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    moments = [NOW, NOW - timedelta(hours=1), NOW - timedelta(days=1)]
    await service.store.record([report(user, model, occurred_at=moment) for moment in moments])
    days = (await service.stub.ListUsageBuckets(ListUsageBucketsRequest(), **by(user))).buckets
    assert [bucket.requests for bucket in days] == [0] * 28 + [1, 2]
    assert days[0].start.ToDatetime(UTC) == datetime(2026, 2, 14, tzinfo=UTC)
    assert (days[-1].input_tokens, days[-1].output_tokens, days[-1].avg_latency_ms) == (2000, 200, 200)
    assert days[-1].cost_usd == 0.007
    hours = (await service.stub.ListUsageBuckets(ListUsageBucketsRequest(granularity="hour"), **by(user))).buckets
    assert len(hours) == 48
    assert [number for number, bucket in enumerate(hours) if bucket.requests] == [12, 35, 36]
    assert hours[36].start.ToDatetime(UTC) == datetime(2026, 3, 15, 12, tzinfo=UTC)
    other = ListUsageBucketsRequest(power_level=ECO, start_date="2026-03-14", end_date="2026-03-15")
    assert [b.requests for b in (await service.stub.ListUsageBuckets(other, **by(user))).buckets] == [0, 0]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"granularity": "week"}, ["granularity"]),
        ({"granularity": "hour", "start_date": "2026-02-01", "end_date": "2026-03-04"}, ["end_date"]),
        ({"granularity": "hour", "start_date": "2026-01-11", "end_date": "2026-01-12"}, ["start_date"]),
        ({"start_date": "soon", "provider_id": "x", "model_id": "y"}, ["start_date", "provider_id", "model_id"]),
        ({"power_level": 7}, ["power_level"]),
    ],
)
async def test_buckets_that_cannot_be_are_refused(
    service: Service, user: uuid.UUID, fields: dict[str, object], wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.stub.ListUsageBuckets(ListUsageBucketsRequest(**fields), **by(user))
    assert sorted(wrong_fields(error)) == sorted(wrong)


async def test_hours_can_be_seen_for_as_long_as_they_are_kept(service: Service, user: uuid.UUID) -> None:
    oldest = ListUsageBucketsRequest(granularity="hour", start_date="2026-01-12", end_date="2026-01-12")
    assert len((await service.stub.ListUsageBuckets(oldest, **by(user))).buckets) == 24


async def test_records_come_in_pages(service: Service, user: uuid.UUID, model: uuid.UUID) -> None:
    await service.store.record([report(user, model, occurred_at=NOW, succeeded=n % 3 > 0) for n in range(7)])
    seen: list[str] = []
    request = ListUsageRecordsRequest(page_size=3)
    while True:
        answer = await service.stub.ListUsageRecords(request, **by(user))
        seen += [record.usage_id for record in answer.records]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert len(seen) == len(set(seen)) == 7
    failed = ListUsageRecordsRequest(status=USAGE_STATUS_ERROR)
    records = (await service.stub.ListUsageRecords(failed, **by(user))).records
    assert [(record.status, record.failure) for record in records] == [
        (USAGE_STATUS_ERROR, ATTEMPT_FAILURE_UNSPECIFIED)
    ] * 3
    assert records[0].latency_ms == 200


@pytest.mark.parametrize(
    "token",
    [
        "x",
        next_page_token("2026-03-15", str(uuid.UUID(int=7))),
        next_page_token(1, "no uuid"),
        next_page_token(2**62, str(uuid.UUID(int=7))),
        next_page_token(-(2**62), str(uuid.UUID(int=7))),
    ],
)
async def test_a_page_token_that_no_list_returned_is_refused(service: Service, user: uuid.UUID, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.stub.ListUsageRecords(ListUsageRecordsRequest(page_token=token), **by(user))
    assert wrong_fields(error) == ["page_token"]


async def test_an_export_is_a_csv_file_of_the_period(service: Service, user: uuid.UUID, model: uuid.UUID) -> None:
    await service.store.record([report(user, model, occurred_at=NOW, request_id=f"={n}") for n in range(1200)])
    await service.store.record([report(uuid.uuid4(), model, occurred_at=NOW)])
    call = service.stub.ExportUsage(ExportUsageRequest(start_date="2026-03-01", end_date="2026-03-31"), **by(user))
    chunks = [chunk async for chunk in call]
    assert {chunk.content_type for chunk in chunks} == {"text/csv; charset=utf-8"}
    assert ("content-disposition", 'attachment; filename="llmrouter-usage-2026-03-01-2026-03-31.csv"') in [
        (key, value) for key, value in await call.initial_metadata()
    ]
    header, *rows = csv.reader(io.StringIO(b"".join(chunk.data for chunk in chunks).decode(), newline=""))
    assert tuple(header) == HEADER
    assert {row[2] for row in rows} == {f"'={n}" for n in range(1200)}
    assert len(rows) == 1200
    assert len(chunks) > 3


async def test_an_export_says_so_itself_when_its_time_is_up(
    service: Service, user: uuid.UUID, model: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_service, "LAST_WORDS_S", usage_service.EXPORT_S)
    await service.store.record([report(user, model, occurred_at=NOW) for _ in range(1001)])
    chunks = [chunk.data async for chunk in service.stub.ExportUsage(ExportUsageRequest(), **by(user))]
    *rows, last = csv.reader(io.StringIO(b"".join(chunks).decode(), newline=""))
    assert len(rows) == 1001
    assert tuple(last) == INCOMPLETE


async def test_an_export_says_so_itself_when_the_server_leaves(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    await service.store.record([report(user, model, occurred_at=NOW) for _ in range(1001)])
    now = asyncio.get_running_loop().time()
    leaving = UsageService(service.store, quiet_recorder(service.store), lambda: NOW, lambda: now)
    context = cast("Context", StubContext())
    with calling(user):
        chunks = [chunk.data async for chunk in leaving.ExportUsage(ExportUsageRequest(), context)]
    *rows, last = csv.reader(io.StringIO(b"".join(chunks).decode(), newline=""))
    assert len(rows) == 1001
    assert tuple(last) == INCOMPLETE


async def test_an_export_of_nothing_is_a_header_and_a_wrong_one_an_error(service: Service, user: uuid.UUID) -> None:
    [chunk] = [chunk async for chunk in service.stub.ExportUsage(ExportUsageRequest(), **by(user))]
    assert chunk.data.decode().split("\r\n") == [",".join(HEADER), ""]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.stub.ExportUsage(ExportUsageRequest(end_date="today", model_id="m"), **by(user)).read()
    assert sorted(wrong_fields(error)) == ["end_date", "model_id"]


async def test_a_user_sees_nobody_elses_usage_and_a_service_says_whose(
    service: Service, user: uuid.UUID, model: uuid.UUID
) -> None:
    await service.store.record([report(user, model, occurred_at=NOW)])
    other = by(uuid.uuid4())
    for ask, request in (
        (service.stub.GetUsage, GetUsageRequest(user_id=str(user))),
        (service.stub.ListUsageBuckets, ListUsageBucketsRequest(user_id=str(user))),
        (service.stub.ListUsageRecords, ListUsageRecordsRequest(user_id=str(user))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(request, **other)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await ask(request, **SERVICE)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.stub.ExportUsage(ExportUsageRequest(user_id=str(user)), **other).read()
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await service.stub.ListUsageRecords(ListUsageRecordsRequest(), **other)).records == []
    request = ListUsageRecordsRequest(user_id=str(user))
    assert len((await service.stub.ListUsageRecords(request, **SERVICE)).records) == 1
