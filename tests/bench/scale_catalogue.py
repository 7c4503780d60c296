"""Many models: whether Route is still right, what it costs, and how soon a change of the catalogue is everywhere."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import grpc

from bench.grpc_load import Load
from bench.rounds import ROUTE, quantile
from bench.scale_data import load_catalogue, user_id
from llmrouter.v2 import power_level_pb2, routing_service_pb2, routing_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rounds import Figures
    from bench.scale_world import Server, World

CALLS, NEW_CALLS = 400, 200
WEIGHTS = (0.4, 0.4, 0.2)
MODELS = """
select p.name as provider, m.model_name as model, p.priority, m.input_cost_per_1m + m.output_cost_per_1m as cost,
    m.avg_latency_ms as latency, m.quality_score as quality
from llm_models m inner join llm_providers p on p.id = m.provider_id
where m.power_level = 'BALANCED' and not p.requires_byok and p.is_enabled and m.is_enabled"""
COUNT = "select count(*)::float8 from llm_models"
SNAPSHOT_BYTES = "select pg_column_size(models)::float8 from llm_catalog_snapshots order by number desc limit 1"
CHANGE = "update llm_models set avg_latency_ms = avg_latency_ms + 1 where model_name = 'gpt-4o'"
NUMBER = "select number from llm_catalog_version"
SEEN_S = 20.0


async def catalogue(world: World, database: str, providers: int, models: int, *, changes: int) -> dict[str, Figures]:
    """Measure with the seed's models, and then with so many more. RuntimeError: a model that is not the best."""
    await world.drop_database(database)
    await world.make_database(database)
    found = {"seed": await _measure(world, database, changes)}
    began = time.perf_counter()
    await load_catalogue(world, database, providers, models)
    loaded_s = time.perf_counter() - began
    found["many"] = await _measure(world, database, changes) | {"load_s": loaded_s}
    return found


async def _measure(world: World, database: str, changes: int) -> Figures:
    async with world.server(database) as server, world.connection(database) as connection:
        expected = _best(await connection.fetch(MODELS))
        asked = routing_service_pb2.RouteRequest(
            power_level=power_level_pb2.BALANCED, fallback_count=3, user_id=str(user_id(0))
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = routing_service_pb2_grpc.RoutingServiceStub(channel)
            metadata = tuple(server.service_token().items())
            routed = await stub.Route(asked, metadata=metadata, timeout=20)
            if [(each.provider_name, each.model_name) for each in (routed.primary, *routed.fallbacks)] != expected:
                raise RuntimeError("Route did not choose the best models")
            resident = server.resident_mb[0]
            before = server.cpu_s()
            result = await server.load(_load(server, asked.SerializeToString()))
            used_us = (server.cpu_s() - before) / result["answers"] * 1e6
            new = await _new_ones(server, stub, asked, metadata)
            published = [await _change(connection, stub, asked, metadata) for _ in range(changes)]
        latencies = result["latencies_s"]
        return {
            "models": await connection.fetchval(COUNT),
            "snapshot_kb": await connection.fetchval(SNAPSHOT_BYTES) / 1e3,
            "p50_ms": quantile(latencies, 0.5) * 1e3,
            "p99_ms": quantile(latencies, 0.99) * 1e3,
            "server_us": used_us,
            **new,
            "rss_mb": resident,
            "rss_after_mb": server.resident_mb[0],
            "commit_ms": quantile([commit for commit, _ in published], 0.5) * 1e3,
            "seen_ms": quantile([seen for _, seen in published], 0.5) * 1e3,
        }


def _best(models: Sequence[Any]) -> list[tuple[str, str]]:
    """Score models by the formula of the documentation, and return the first four."""
    most_cost, most_latency = (max(model[name] for model in models) for name in ("cost", "latency"))

    def composite(model: Any) -> float:
        parts = (
            1 - float(model["cost"] / most_cost),
            1 - model["latency"] / most_latency,
            float(model["quality"]) / 10,
        )
        return sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True))

    ranked = sorted(models, key=lambda each: (-round(composite(each), 12), -each["priority"], -each["quality"]))
    return [(model["provider"], model["model"]) for model in ranked[:4]]


def _load(server: Server, message: bytes) -> Load:
    return Load(
        port=server.port,
        path=ROUTE,
        metadata=server.service_token(),
        messages=[[base64.b64encode(message).decode()]],
        connections=1,
        callers=1,
        seconds=600.0,
        most_calls=CALLS,
    )


async def _new_ones(server: Server, stub: Any, asked: Any, metadata: Any) -> Figures:
    """Ask with an estimate that nobody had before: no decision that is remembered answers it."""
    latencies, before = [], server.cpu_s()
    for number in range(NEW_CALLS):
        new = routing_service_pb2.RouteRequest(estimated_input_tokens=1000 + number, estimated_output_tokens=500)
        new.MergeFrom(asked)
        began = time.perf_counter()
        routed = await stub.Route(new, metadata=metadata, timeout=20)
        latencies.append(time.perf_counter() - began)
        if not routed.primary.model_name:
            raise RuntimeError("Route did not choose")
    return {
        "new_p50_ms": quantile(latencies, 0.5) * 1e3,
        "new_p99_ms": quantile(latencies, 0.99) * 1e3,
        "new_server_us": (server.cpu_s() - before) / NEW_CALLS * 1e6,
    }


async def _change(connection: Any, stub: Any, asked: Any, metadata: Any) -> tuple[float, float]:
    """Change a model; return how long the commit took, and from then until a Route that has seen it is answered."""
    began = time.perf_counter()
    await connection.execute(CHANGE)
    committed = time.perf_counter()
    number = await connection.fetchval(NUMBER)
    async with asyncio.timeout(SEEN_S):
        while (await stub.Route(asked, metadata=metadata, timeout=20)).catalog_snapshot < number:
            await asyncio.sleep(0.001)
    return committed - began, time.perf_counter() - committed
