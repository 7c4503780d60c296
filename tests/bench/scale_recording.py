"""How many reports of usage are acknowledged a second, and how soon."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from bench.rounds import quantile
from bench.scale_record_load import RecordLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rounds import Figures
    from bench.scale_world import Server, World

USERS = 1000
BATCH, UNARY = "128 a call", "one a call"
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
    """Measure both calls in turn, so many rounds, over servers of so many workers. RuntimeError: something is lost."""
    await world.make_database(database)
    users = [str(uuid.uuid4()) for _ in range(USERS)]
    async with world.connection(database) as connection:
        models = [row["id"] for row in await connection.fetch(MODELS)]
    found: dict[str, list[Figures]] = {}
    for count in workers:
        async with world.server(database, workers=count, pinned=False) as server:
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
    return {name: _medians(each) for name, each in found.items()}


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
