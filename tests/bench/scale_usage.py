"""Analytics over few and many rows of usage: the same questions to two databases, in turn."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import grpc

from bench.grpc_load import Load
from bench.rounds import quantile
from bench.scale_data import HEAVY, NORMAL, user_id
from llmrouter.v2 import usage_service_pb2, usage_service_pb2_grpc
from llmrouter_server.runtime.fields import next_page_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from bench.rounds import Figures
    from bench.scale_world import Server, World

SERVICE = "/llmrouter.v2.UsageService/"
PAGE = 50
DEEP_DAYS = 180
"""How long ago the deep page is: half of the records lie before it."""
YEAR = timedelta(days=364)
"""How far back the deep page's list goes, today's day besides."""
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
SUMMED = """
select count(*) filter (where status = 'success') as requests, count(*) filter (where status = 'error') as failed,
    coalesce(sum(input_tokens), 0)::float8 as input_tokens, coalesce(sum(cost_usd), 0)::float8 as cost_usd
from llm_usage_logs where user_id = $1 and created_at >= $2"""
NEWEST = """
select id::text from llm_usage_logs where user_id = $1 and created_at >= $2 and created_at < $3
order by created_at desc, id desc limit $4"""
ROWS = "select sum(requests + failed_requests)::float8 from llm_usage_daily"
SIZE = "select pg_database_size(current_database())::float8"
OF_USER = "select coalesce(sum(requests + failed_requests), 0)::float8 from llm_usage_daily where user_id = $1"


async def usage(world: World, databases: Mapping[str, str], *, rounds: int, calls: int) -> dict[str, Figures]:
    """Ask each database by its name, in turn, so many rounds. RuntimeError: an answer that the records do not bear."""
    found: dict[str, dict[str, list[float]]] = {}
    about: dict[str, Figures] = {}
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(world.server(database)) for name, database in databases.items()
        }
        for name, database in databases.items():
            async with world.connection(database) as connection:
                await _check(servers[name], connection)
                about[name] = {"rows": await connection.fetchval(ROWS), "bytes": await connection.fetchval(SIZE)}
                for who, number in (("normal", NORMAL), ("heavy", HEAVY)):
                    about[name][f"rows of the {who} user"] = await connection.fetchval(OF_USER, user_id(number))
        for turn in range(rounds):
            for name in reversed(databases) if turn % 2 else databases:
                for what, (method, message) in questions().items():
                    result = await servers[name].load(_load(servers[name], method, message, calls))
                    found.setdefault(what, {}).setdefault(name, []).extend(result["latencies_s"])
    asked = {
        what: {
            f"{name} {part}": quantile(latencies, share) * 1e3
            for name, latencies in each.items()
            for part, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
        }
        for what, each in found.items()
    }
    return asked | {f"about {name}": figures for name, figures in about.items()}


def questions() -> dict[str, tuple[str, Any]]:
    """Return what is asked: the method and its request, by what the report calls it."""
    asked: dict[str, tuple[str, Any]] = {}
    today = datetime.now(UTC).date()
    for who, number in (("normal", NORMAL), ("heavy", HEAVY)):
        user = str(user_id(number))
        asked[f"GetUsage, 30 days, {who} user"] = ("GetUsage", usage_service_pb2.GetUsageRequest(user_id=user))
        asked[f"GetUsage, a year, {who} user"] = ("GetUsage", usage_service_pb2.GetUsageRequest(user_id=user, days=365))
        page = usage_service_pb2.ListUsageRecordsRequest(user_id=user, page_size=PAGE)
        asked[f"records, first page, {who} user"] = ("ListUsageRecords", page)
        asked[f"records, deep page, {who} user"] = ("ListUsageRecords", _deep_page(user, today))
    return asked


def _deep_page(user: str, today: date) -> usage_service_pb2.ListUsageRecordsRequest:
    place = (_deep_place(today) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return usage_service_pb2.ListUsageRecordsRequest(
        user_id=user,
        page_size=PAGE,
        start_date=str(today - YEAR),
        end_date=str(today),
        page_token=next_page_token(place, LAST_ID),
    )


def _deep_place(today: date) -> datetime:
    return datetime.combine(today - timedelta(days=DEEP_DAYS), time(), UTC)


def _load(server: Server, method: str, message: Any, calls: int) -> Load:
    return Load(
        port=server.port,
        path=SERVICE + method,
        metadata=server.service_token(),
        messages=[[base64.b64encode(message.SerializeToString()).decode()]],
        connections=1,
        callers=1,
        seconds=600.0,
        most_calls=calls,
    )


async def _check(server: Server, connection: Any) -> None:
    """Compare the answers about both users with the records themselves."""
    today = datetime.now(UTC).date()
    since, deep = datetime.combine(today - timedelta(days=29), time(), UTC), _deep_place(today)
    pages = {"first": (since, datetime.now(UTC)), "deep": (datetime.combine(today - YEAR, time(), UTC), deep)}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = usage_service_pb2_grpc.UsageServiceStub(channel)
        metadata = tuple(server.service_token().items())
        for who, number in (("normal", NORMAL), ("heavy", HEAVY)):
            asked, user = questions(), user_id(number)
            told = await stub.GetUsage(asked[f"GetUsage, 30 days, {who} user"][1], metadata=metadata, timeout=10)
            row = await connection.fetchrow(SUMMED, user, since)
            sums = (told.total_requests, told.failed_requests, told.total_input_tokens, told.total_cost_usd)
            if sums != tuple(row):
                raise RuntimeError(f"GetUsage tells {sums}, the records {tuple(row)}")
            for page, period in pages.items():
                request = asked[f"records, {page} page, {who} user"][1]
                listed = await stub.ListUsageRecords(request, metadata=metadata, timeout=10)
                rows = await connection.fetch(NEWEST, user, *period, PAGE)
                told_ids, known_ids = [each.usage_id for each in listed.records], [row["id"] for row in rows]
                if told_ids != known_ids:
                    raise RuntimeError(f"the {page} page of the {who} user has {told_ids} and not {known_ids}")
