"""How many reports of usage are acknowledged a second, and how soon."""

from __future__ import annotations

import base64
import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import grpc_load
from bench.echo_server import INTAKE
from bench.places import _end, _python, port_of
from bench.rounds import quantile
from bench.scale_record_load import SERVICE, RecordLoad
from llmrouter.v2 import usage_service_pb2
from llmrouter_server.cli import GRPC_POLLING
from process_meter import cpu_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

    from bench.rounds import Figures
    from bench.scale_world import Server, World

USERS = 1000
BATCH, UNARY, ECHO = "128 a call", "one a call", "echo, one a call"
LOADS = {
    "64 a call": {"batch": 64, "connections": 4, "callers": 1},
    BATCH: {"batch": 128, "connections": 2, "callers": 1},
    UNARY: {"batch": 0, "connections": 16, "callers": 4},  # so many connections share themselves out among workers
}

MODELS = "select id::text from llm_models"
RECORDED = """
select count(*)::float8 as records, coalesce(sum(cost_usd), 0) as cost_usd from llm_usage_logs where created_at >= $1"""
SUMMED = """
select (select sum(requests + failed_requests)::float8 from llm_usage_daily) as daily,
    (select sum(requests + failed_requests)::float8 from llm_usage_hourly) as hourly,
    (select sum(cost_usd) from llm_usage_daily) as daily_usd,
    (select sum(spent_usd) from llm_budget_ledger) as ledger_usd"""
NOW = "select now()"


async def recording(
    world: World, database: str, *, rounds: int, seconds: float, workers: Sequence[int] = (1, 2)
) -> dict[str, Figures]:
    """Measure both calls and an echo in turn, so many rounds, over servers of so many workers.

    RuntimeError: something is lost.
    """
    await world.make_database(database)
    await world.fill_wal()
    users = [str(uuid.uuid4()) for _ in range(USERS)]
    async with world.connection(database) as connection:
        models = [row["id"] for row in await connection.fetch(MODELS)]
    found: dict[str, list[Figures]] = {}
    for count in workers:
        async with world.server(database, workers=count, pinned=False) as server, _echo() as echo:
            for number in range(rounds + 1):
                for name, shape in LOADS.items():
                    load = RecordLoad(
                        port=server.port,
                        metadata=server.service_token(),
                        users=users,
                        models=models,
                        seconds=seconds if number else min(seconds, 1.0),
                        **shape,
                    )
                    figures = await _measure(server, database, load)
                    if number:  # the first one only warms up
                        found.setdefault(f"{name}, {count} workers", []).append(figures)
                if number and count == workers[0]:
                    found.setdefault(ECHO, []).append(await _echoed(server, echo, seconds))
    return {name: _medians(each) for name, each in found.items()}


@dataclass(frozen=True, slots=True)
class Echo:
    """A bare gRPC server, set up as ours and with its intake: what the transport alone could do in the same minute."""

    port: int
    pid: int


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[Echo]:
    answer = usage_service_pb2.RecordUsageResponse(usage_id=str(uuid.uuid4()), cost_usd=0.001)
    process = await _python("bench.echo_server", _base64(answer), INTAKE, **dict([GRPC_POLLING]))
    try:
        yield Echo(await port_of(process), process.pid)
    finally:
        await _end(process)


async def _echoed(server: Server, echo: Echo, seconds: float) -> Figures:
    ids = {name: str(uuid.uuid4()) for name in ("user_id", "request_id", "model_id", "decision_id")}
    report = usage_service_pb2.RecordUsageRequest(**ids, input_tokens=1000, output_tokens=250, latency_ms=700)
    shape = LOADS[UNARY]
    load = grpc_load.Load(
        port=echo.port,
        path=SERVICE + "RecordUsage",
        metadata=server.service_token(),
        messages=[[_base64(report)]],
        connections=shape["connections"],
        callers=shape["callers"],
        seconds=seconds,
    )
    used = cpu_s(echo.pid)
    result = await server.load(load)
    used = cpu_s(echo.pid) - used
    return {
        "per_s": result["per_s"],
        "p50_ms": quantile(result["latencies_s"], 0.5) * 1e3,
        "p99_ms": quantile(result["latencies_s"], 0.99) * 1e3,
        "server_us": used / result["answers"] * 1e6,
    }


def _base64(message: Message) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


async def _measure(server: Server, database: str, load: RecordLoad) -> Figures:
    world = server.world
    async with world.connection(database) as connection:
        since = await connection.fetchval(NOW)
        before = await connection.fetchrow(SUMMED)
        used, used_by_postgres = server.cpu_s(), world.postgres_cpu_s()
        result = await server.load(load, "scale_record_load")
        used, used_by_postgres = server.cpu_s() - used, world.postgres_cpu_s() - used_by_postgres
        await _check(connection, since, before, result["acknowledged"])
    latencies, records = result["latencies_s"], result["acknowledged"]
    return {
        "per_s": result["per_s"],
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "server_us": used / records * 1e6,
        "postgres_us": used_by_postgres / records * 1e6,
        "rss_mb": max(server.resident_mb),
    }


async def _check(connection: Any, since: Any, before: Any, acknowledged: int) -> None:
    """Find every report that was acknowledged once in the records and once in every sum."""
    recorded, after = await connection.fetchrow(RECORDED, since), await connection.fetchrow(SUMMED)
    for sums in ("daily", "hourly"):
        if recorded["records"] != acknowledged or after[sums] - (before[sums] or 0) != acknowledged:
            raise RuntimeError(f"{acknowledged} reports were acknowledged, not {recorded['records']:.0f}")
    for sums in ("daily_usd", "ledger_usd"):
        if after[sums] - (before[sums] or 0) != recorded["cost_usd"]:
            raise RuntimeError("the sums of recorded usage do not agree with the records")


def _medians(rounds: Sequence[Figures]) -> Figures:
    return {name: quantile([each[name] for each in rounds], 0.5) for name in rounds[0]}
