"""An export of usage as a file, through the edge."""

from __future__ import annotations

import asyncio
import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api import httpbody_pb2

import http_json
from llmrouter.v2.usage_pb2 import USAGE_STATUS_ERROR
from llmrouter.v2.usage_service_pb2 import BatchRecordUsageRequest, RecordUsageRequest
from llmrouter_server.runtime.interceptor import LONGEST_STREAM_S
from llmrouter_server.usage.export import HEADER
from transcoding.edge_harness import Edge, assert_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from golden import Player
    from llmrouter import Client
    from llmrouter_server.runtime.local_stack import LocalStack

PATH = "/api/v2/llm/usage/export"
ROWS = 4000
SAYINGS = ("", 'he said "no", then\r\nhung up', "=1+1", "größer, 大きい 😀", "a,b;c\td")
HANG_UPS = 25  # more than the server has connections to its database


# --- the edge alone ---


@pytest.fixture
async def edge(own_edge: Callable[..., Awaitable[Edge]]) -> Edge:
    return await own_edge()


def part(data: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="text/csv; charset=utf-8", data=data)


async def slow(_: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
    for row in (b"a\r\n", b"b\r\n", b"c\r\n"):
        yield part(row)
        await asyncio.sleep(0.7)


async def test_an_export_may_take_longer_than_anything_else(own_edge: Callable[..., Awaitable[Edge]]) -> None:
    edge = await own_edge(deadline_s=1)

    async def hang(*_: object) -> None:
        await asyncio.sleep(30)

    edge.server.parts, edge.server.answer = slow, hang
    cookie = {"cookie": f"session={edge.issuer.token()}"}
    by_token, by_cookie, *others = await asyncio.gather(
        edge.call("GET", f"{PATH}?status=1"),
        edge.call("GET", PATH, token=None, headers=cookie),
        *(edge.call("GET", f"/api/v2/llm{path}") for path in ("/usage", "/usage/series", "/usage/records")),
    )
    for reply in (by_token, by_cookie):
        assert (reply.status, reply.body) == (200, b"a\r\nb\r\nc\r\n")
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    for reply in others:
        assert_error(reply, 504, 4, "DEADLINE_EXCEEDED")


async def test_its_deadline_is_the_servers_own_for_streams_or_the_clients_shorter_one(edge: Edge) -> None:
    for headers in ({}, {"grpc-timeout": "7S"}):
        await edge.call("GET", PATH, headers=headers)
    own, shorter = (call.time_left_s or 0 for call in edge.server.calls)
    assert LONGEST_STREAM_S - 10 < own <= LONGEST_STREAM_S
    assert 0 < shorter <= 7


async def test_only_reading_is_let_past_the_csrf_filter(edge: Edge) -> None:
    cookie = {"cookie": f"session={edge.issuer.token()}", "content-type": "application/json"}
    reply = await edge.call("POST", PATH, {}, token=None, headers=cookie)
    assert_error(reply, 403, 7, "ORIGIN_NOT_ALLOWED")
    assert_error(await edge.call("POST", PATH, {}), 404, 5, "UNKNOWN_PATH")
    assert_error(await edge.call("GET", PATH, token=None), 401, 16, "UNAUTHENTICATED")
    assert edge.server.calls == []


async def test_an_error_before_the_first_part_is_an_answer_like_any_other(edge: Edge) -> None:
    async def fails(context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "secret internals")
        yield part(b"never")

    edge.server.parts = fails
    assert_error(await edge.call("GET", PATH), 503, 14, "UNAVAILABLE")


async def test_an_error_after_the_first_part_looks_like_a_good_end(edge: Edge) -> None:
    """Why an export says in its last row that it is incomplete."""

    async def fails(context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        yield part(b"a\r\n")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "secret internals")

    head = f"GET {PATH} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {edge.issuer.token()}\r\n"
    edge.server.parts = fails
    assert (await edge.raw(f"{head}\r\n".encode())).endswith(b"\r\n\r\n3\r\na\r\n\r\n0\r\n\r\n")


async def test_a_client_that_hangs_up_ends_the_work(edge: Edge) -> None:
    ended = asyncio.Event()

    async def flood(_: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:
        try:
            while True:
                yield part(b"x" * 65_536)
        finally:
            ended.set()

    edge.server.parts = flood
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {edge.issuer.token()}\r\n\r\n".encode())
    await reader.readexactly(1_000_000)
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 10)


# --- the whole product ---


@pytest.fixture(scope="module")
def recorded(recording_client: Client, stack: LocalStack) -> tuple[str, list[RecordUsageRequest]]:
    """A token of a user, and thousands of attempts of theirs, yesterday's and the day before's, newest first."""
    user, now = uuid.uuid4(), datetime.now(UTC)
    token = stack.identity.mint("user", user)
    models = http_json.call("GET", f"{stack.base_url}/models", token=token).json["models"]
    model = next(model for model in models if model["model_name"] == "gpt-4o-mini")
    attempts = []
    for number in range(ROWS):
        attempt = RecordUsageRequest(
            user_id=str(user),
            request_id=f"attempt-{number}",
            model_id=model["model_id"],
            input_tokens=number,
            output_tokens=1,
            status=USAGE_STATUS_ERROR if number % 5 else 0,
            error_message=SAYINGS[number % 5],
        )
        attempt.occurred_at.FromDatetime(now - timedelta(days=1, seconds=20 * number))
        attempts.append(attempt)
    for start in range(0, ROWS, 1000):
        batch = recording_client.usage.BatchRecordUsage(BatchRecordUsageRequest(records=attempts[start : start + 1000]))
        assert {result.WhichOneof("outcome") for result in batch.results} == {"recorded"}, batch.results[0]
    return token, attempts


def test_the_file_is_whole(stack: LocalStack, recorded: tuple[str, list[RecordUsageRequest]]) -> None:
    token, attempts = recorded
    answer = http_json.call("GET", f"{stack.base_url}/usage/export", token=token)
    today = datetime.now(UTC).date()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    name = f"llmrouter-usage-{today - timedelta(days=29)}-{today}.csv"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["x-request-id"]
    assert len(answer.json) > 10 * 65_536
    header, *rows = csv.reader(io.StringIO(answer.json, newline=""))
    assert tuple(header) == HEADER
    assert [(row[2], row[9], row[15].removeprefix("'")) for row in rows] == [
        (attempt.request_id, str(attempt.input_tokens), attempt.error_message) for attempt in attempts
    ]
    assert {row[15] for row in rows} == {*SAYINGS, "'=1+1"} - {"=1+1"}
    usage = http_json.call("GET", f"{stack.base_url}/usage", token=token).json
    assert sum(float(row[11]) for row in rows) == pytest.approx(usage["total_cost_usd"])


def test_filters_narrow_it(stack: LocalStack, recorded: tuple[str, list[RecordUsageRequest]]) -> None:
    token, attempts = recorded
    url = f"{stack.base_url}/usage/export?status=USAGE_STATUS_SUCCESS&power_level=balanced"
    _, *rows = csv.reader(io.StringIO(http_json.call("GET", url, token=token).json, newline=""))
    assert [row[2] for row in rows] == [attempt.request_id for attempt in attempts[::5]]
    none = http_json.call(
        "GET", f"{stack.base_url}/usage/export?start_date=2020-01-01&end_date=2020-01-02", token=token
    )
    assert none.json == ",".join(HEADER) + "\r\n"


def test_an_error_has_the_shape_of_all_errors(player: Player, tokens: dict[str, str]) -> None:
    wrong = http_json.call("GET", f"{player.url}/usage/export?start_date=yesterday", token=tokens["user"])
    assert (wrong.status, wrong.headers["content-type"]) == (400, "application/json")
    assert wrong.json["details"][0]["reason"] == "INVALID_FIELD"
    other = http_json.call("GET", f"{player.url}/usage/export?user_id={uuid.uuid4()}", token=tokens["user"])
    assert (other.status, other.json["details"][0]["reason"]) == (403, "ROLE_REQUIRED")


async def test_clients_that_hang_up_in_the_middle_hurt_nobody(
    stack: LocalStack, recorded: tuple[str, list[RecordUsageRequest]]
) -> None:
    token, attempts = recorded
    log = stack.home / "logs" / "server.log"
    logged = log.stat().st_size

    async def hang_up() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.http)
        writer.write(f"GET {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n".encode())
        assert (await reader.read(1000)).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.transport.abort()

    await asyncio.gather(*(hang_up() for _ in range(HANG_UPS)))
    url = f"{stack.base_url}/usage/export"
    whole = await asyncio.to_thread(http_json.call, "GET", url, token=token)
    assert len(list(csv.reader(io.StringIO(whole.json, newline="")))) == 1 + len(attempts)
    assert b'"unhandled exception"' not in log.read_bytes()[logged:]
