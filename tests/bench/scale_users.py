"""A million users with settings and keys: what Route costs for one whom nobody has seen, and what is remembered."""

from __future__ import annotations

import asyncio
import base64
import random
import uuid
from typing import TYPE_CHECKING, Any

import grpc

from bench.grpc_load import Load
from bench.rounds import ROUTE, quantile
from bench.scale_data import IS_LOADED, MARK_LOADED, loading, user_id
from llmrouter.v2 import power_level_pb2, routing_service_pb2, routing_service_pb2_grpc
from llmrouter_server.byok.cipher import Credential

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.rounds import Figures
    from bench.scale_world import Server, World

LEVELS = ("ECO", "BALANCED", "PRECISION")
KEYED = (("Groq", "OpenAI"), ("Anthropic", "Together AI"))
"""Providers for which users with an even number have keys, and those with an odd one."""
CHUNK = 50_000
CHECKED = 60
IN_FLIGHT = 32
WRITTEN_S = 60.0

ADD_SETTINGS = """
insert into user_llm_settings (user_id, preferred_power_level, monthly_budget_usd)
select md5('user ' || n)::uuid, (array['ECO', 'BALANCED', 'PRECISION'])[1 + n % 3], 100
from generate_series($1::int, $2::int - 1) as n"""
KEY_COLUMNS = ("id", "user_id", "provider_id", "encrypted_api_key", "key_prefix")
DECISIONS = "select count(*) from llm_decisions"
PROVIDERS = "select name, id from llm_providers"


async def load_users(world: World, database: str, number: int, say: Callable[[str], object]) -> None:
    """Give so many users settings and two keys each, encrypted as the server would."""
    await world.make_database(database)
    cipher = world.cipher
    async with loading(world, database) as connection:
        ids: dict[str, uuid.UUID] = dict(map(tuple, await connection.fetch(PROVIDERS)))
        for first in range(0, number, CHUNK):
            last, part = min(number, first + CHUNK), f"users {first}"
            if await connection.fetchval(IS_LOADED, part):
                continue
            keys = [
                (uuid.uuid4(), user, ids[name], cipher.encrypt(key, user_id=user, provider_id=ids[name]), "sk-ben")
                for n in range(first, last)
                for user, key in [(user_id(n), Credential(f"sk-bench-{n:012}"))]
                for name in KEYED[n % 2]
            ]
            async with connection.transaction():
                await connection.execute(ADD_SETTINGS, first, last)
                await connection.copy_records_to_table("user_provider_keys", records=keys, columns=KEY_COLUMNS)
                await connection.execute(MARK_LOADED, part)
            say(f"{database}: {last:,} users")
        await connection.execute("vacuum analyze user_llm_settings")
        await connection.execute("vacuum analyze user_provider_keys")


async def users(
    world: World, database: str, number: int, *, cached: int, steps: Sequence[int], calls: int, workers: Sequence[int]
) -> dict[str, Figures]:
    """Route for random users: alone for latency, many at once for throughput and memory.

    cached: how many users each process may remember; steps: after how many users its memory is measured.
    """
    order = list(range(number))
    random.Random(1).shuffle(order)
    found: dict[str, Figures] = {}
    async with world.server(database, CACHED_USERS=str(cached)) as server:
        await _check(server, order[-CHECKED:])
        fresh, order = order[:calls], order[calls:]
        for name in ("cold", "warm"):
            result = await server.load(_load(server, fresh, callers=1))
            found[f"{name}, one at a time"] = _latency(result["latencies_s"])
        memory: Figures = {"users 0": server.resident_mb[0]}
        most_unwritten = 0.0
        seen = 0
        async with world.connection(database) as connection:
            for step in steps:
                before = await _written(connection)
                await server.load(_load(server, order[seen:step], callers=IN_FLIGHT))
                unwritten = step - seen - (await _written(connection) - before)
                most_unwritten = max(most_unwritten, unwritten)
                async with asyncio.timeout(WRITTEN_S):
                    while await _written(connection) - before < step - seen:
                        await asyncio.sleep(0.1)
                seen = step
                memory[f"users {step}"] = server.resident_mb[0]
        found["memory"] = memory | {"cached": cached, "most_unwritten": most_unwritten}
    for count in workers:
        async with world.server(database, workers=count, pinned=False, CACHED_USERS=str(cached)) as server:
            fresh, order = order[: 10 * calls], order[10 * calls :]
            for name in ("cold", "warm"):
                before = server.cpu_s()
                result = await server.load(_load(server, fresh, callers=IN_FLIGHT))
                used = (server.cpu_s() - before) / result["answers"]
                figures = _latency(result["latencies_s"]) | {"per_s": result["per_s"], "server_us": used * 1e6}
                found[f"{name}, {count} workers"] = figures
    return found


def _load(server: Server, numbers: Sequence[int], *, callers: int) -> Load:
    requests = [routing_service_pb2.RouteRequest(user_id=str(user_id(n))).SerializeToString() for n in numbers]
    connections = min(callers, 4)
    return Load(
        port=server.port,
        path=ROUTE,
        metadata=server.service_token(),
        messages=[[base64.b64encode(each).decode()] for each in requests],
        connections=connections,
        callers=callers // connections,
        seconds=600.0,
        most_calls=len(requests),
    )


def _latency(latencies_s: Sequence[float]) -> Figures:
    return {"p50_ms": quantile(latencies_s, 0.5) * 1e3, "p99_ms": quantile(latencies_s, 0.99) * 1e3}


async def _written(connection: Any) -> float:
    return float(await connection.fetchval(DECISIONS))


async def _check(server: Server, numbers: Sequence[int]) -> None:
    """Ask for some users: each is routed by its own settings, to providers for which it has keys or needs none."""
    strange = {name for names in KEYED for name in names} | {"HuggingFace"}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = routing_service_pb2_grpc.RoutingServiceStub(channel)
        for n in numbers:
            asked = routing_service_pb2.RouteRequest(user_id=str(user_id(n)), fallback_count=5)
            routed = await stub.Route(asked, metadata=tuple(server.service_token().items()), timeout=10)
            providers = {each.provider_name for each in (routed.primary, *routed.fallbacks)}
            if routed.power_level != power_level_pb2.PowerLevel.Value(LEVELS[n % 3]):
                raise RuntimeError("a user was not routed by their settings")
            if providers & (strange - set(KEYED[n % 2])):
                raise RuntimeError("a user was routed to a provider without a key")
