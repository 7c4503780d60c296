"""The whole product in front of providers that misbehave, which may be silent as long as a test wants."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg

from conftest import User, make_open_folder
from gateway.chat_client import Reply, send
from gateway.provider_server import Provider, provider
from hostile_provider import Authority
from llmrouter_server.byok.cipher import PLATFORM_USER, Cipher, Credential
from llmrouter_server.gateway.clusters import cluster_name
from llmrouter_server.runtime.local_stack import LocalStack, Ports

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from uuid import UUID

    from llmrouter_server.runtime.envoy_config import EdgeParameters

SILENCE_S = 2
"""How long a provider may say nothing, before the first byte or later, where that is what is tested."""
LONG_SILENCE_S = 20
"""The same for all others: a machine that has much to do must not make a healthy provider look silent."""
LONGEST_S = 120
"""Longer than a test waits for an answer: silence alone must have ended it."""
CONTEXTS = {"A": 8_000, "B": 32_000, "C": 128_000}
"""In the order in which they are tried; each next one takes longer prompts."""
STOCK = 20
"""Worlds that are made at once for tests to come: Envoy takes as long to hear of one."""
REST_S = 2
"""How long an unhealthy provider is left alone."""
PRICE_IN, PRICE_OUT = Decimal(3), Decimal(15)
"""US dollars for a million tokens, at each of them."""
BUDGET_USD = Decimal(50)
PATIENCE_S = 20.0
"""How long a test waits for what is to be recorded before it fails."""
MAKING_S = 60.0
"""How long for Envoy to have the providers of new worlds: there may be hundreds."""

DISABLE_SEED = "update llm_providers set is_enabled = false"
ADD_PROVIDERS = """
insert into llm_providers (id, name, provider_type, api_endpoint, requires_byok, priority)
select id, name, 'openai', endpoint, false, priority
from unnest($1::uuid[], $2::text[], $3::text[], $4::int[]) as p (id, name, endpoint, priority)"""
ADD_MODELS = """
insert into llm_models (
    provider_id, model_name, display_name, power_level, input_cost_per_1m, output_cost_per_1m, max_context_tokens,
    capabilities
)
select provider_id, name, name, 'ECO', $4, $5, context, '{chat,streaming,tools,json,vision}'
from unnest($1::uuid[], $2::text[], $3::int[]) as m (provider_id, name, context)"""
ADD_PRECISE = """
insert into llm_models (
    provider_id, model_name, display_name, power_level, input_cost_per_1m, output_cost_per_1m, max_context_tokens,
    capabilities
)
select $1, name, name, 'PRECISION', $3, $4, 8000, '{chat}' from unnest($2::text[]) as m (name)"""
ADD_PLATFORM_KEYS = """
insert into llm_platform_keys (provider_id, encrypted_api_key, key_prefix)
select provider_id, ciphertext, 'sk-mad' from unnest($1::uuid[], $2::text[]) as k (provider_id, ciphertext)"""
ADD_KEY = """
insert into user_provider_keys (id, user_id, provider_id, encrypted_api_key, key_prefix)
values (gen_random_uuid(), $1, $2, $3, 'sk-mad')"""
ADD_BUDGETS = """
insert into user_llm_settings (user_id, monthly_budget_usd, routing_config)
select unnest($1::uuid[]), $2,
    '{"strategy": "balanced", "cost_weight": 0.5, "latency_weight": 0, "quality_weight": 0.5}'"""
"""Latencies that were measured do not change the order."""
OPEN = """
select (select count(*) from llm_gateway_requests where user_id = $1) as requests,
    (select count(*) from llm_budget_holds where user_id = $1) as holds,
    (select coalesce(sum(held_usd), 0) from llm_budget_ledger where user_id = $1) as held_usd,
    (select coalesce(sum(spent_usd), 0) from llm_budget_ledger where user_id = $1) as spent_usd"""
RECORDED = """
select split_part(request_id, '/', 2)::int as number, request_id, provider_id, payer, status, failure, input_tokens,
    output_tokens, cached_tokens, reasoning_tokens, cost_usd, latency_ms, is_estimated, error_message
from llm_usage_logs where user_id = $1 order by decision_id, number"""
KEY_REFUSED = "select refused_at is not null from user_provider_keys where user_id = $1 and provider_id = $2"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An attempt as it is stored."""

    decision_id: str
    number: int
    at: str
    """The provider's letter."""
    payer: str
    succeeded: bool
    failure: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: Decimal
    latency_ms: int | None
    is_estimated: bool
    error_message: str | None


@dataclass(frozen=True, slots=True)
class World:
    """A model, the three providers that have it and nothing else, and a user of it. Nobody else has met them."""

    model: str
    providers: Mapping[str, Provider]
    """By their letters: A is tried first, then B, then C."""
    ids: Mapping[str, UUID]
    keys: Mapping[str, str]
    """The platform's."""
    user: User

    @property
    def a(self) -> Provider:
        return self.providers["A"]

    @property
    def b(self) -> Provider:
        return self.providers["B"]

    @property
    def c(self) -> Provider:
        return self.providers["C"]

    def order(self) -> list[tuple[float, str]]:
        """Return when each request came, in seconds, and to whom; oldest first."""
        return sorted((seen.at, letter) for letter, each in self.providers.items() for seen in each.chats)


class ChatStack:
    """Makes worlds, asks in them, and tells what was recorded."""

    def __init__(
        self, stack: LocalStack, authority: Authority, silence_s: int, pool: Any, cleanup: AsyncExitStack
    ) -> None:
        self.stack, self.authority, self.silence_s = stack, authority, silence_s
        self._pool, self._cleanup = pool, cleanup
        self._stock: list[World] = []
        self._cipher = Cipher([(stack.home / "byok.key").read_text().strip()])

    async def new_worlds(self, number: int, *, tls: Mapping[str, ssl.SSLContext] | None = None) -> list[World]:
        """Make so many at once, and wait until each one's providers may be named in a plan.

        tls: the providers, by letter, that speak it, at https://localhost.
        """
        if not number:
            return []
        worlds = [await self._world(tls or {}) for _ in range(number)]
        each = [(world, letter) for world in worlds for letter in CONTEXTS]
        ids = [world.ids[letter] for world, letter in each]
        async with self._pool.acquire() as connection, connection.transaction():
            names = [f"{letter} of {world.model}" for world, letter in each]
            urls = [world.providers[letter].url for world, letter in each]
            await connection.execute(ADD_PROVIDERS, ids, names, urls, [100 - ord(letter) for _, letter in each])
            contexts = [CONTEXTS[letter] for _, letter in each]
            models = [world.model for world, _ in each]
            await connection.execute(ADD_MODELS, ids, models, contexts, PRICE_IN, PRICE_OUT)
            sealed = [
                self._cipher.encrypt(
                    Credential(world.keys[letter]), user_id=PLATFORM_USER, provider_id=world.ids[letter]
                )
                for world, letter in each
            ]
            await connection.execute(ADD_PLATFORM_KEYS, ids, sealed)
            await connection.execute(ADD_BUDGETS, [world.user.id for world in worlds], BUDGET_USD)
        await self._until_in_envoy(ids)
        await self._until_known(worlds[-1], worlds[-1].model)
        return worlds

    async def add_precise(self, world: World, letter: str, number: int) -> None:
        """Give a provider so many models of a power level that its world has not otherwise."""
        names = [f"{world.model}-precise-{index}" for index in range(number)]
        await self._pool.execute(ADD_PRECISE, world.ids[letter], names, PRICE_IN, PRICE_OUT)
        await self._until_known(world, names[-1])

    async def new_world(self, *, tls: Mapping[str, ssl.SSLContext] | None = None) -> World:
        if tls:
            return (await self.new_worlds(1, tls=tls))[0]
        self._stock = self._stock or await self.new_worlds(STOCK)
        world = self._stock.pop()
        await self._until_known(world, world.model)
        return world

    async def give_key(self, world: World, letter: str, key: str) -> None:
        """Let the user have a key of their own at this provider."""
        sealed = self._cipher.encrypt(Credential(key), user_id=world.user.id, provider_id=world.ids[letter])
        await self._pool.execute(ADD_KEY, world.user.id, world.ids[letter], sealed)

    async def is_key_refused(self, world: World, letter: str) -> bool:
        return bool(await self._pool.fetchval(KEY_REFUSED, world.user.id, world.ids[letter]))

    async def ask(
        self,
        world: World,
        *,
        stream: bool = False,
        usage: bool | None = None,
        leave_when: Callable[[Reply], bool] = lambda _: False,
        **more: Any,
    ) -> Reply:
        """Ask for the world's model. usage: what to say of the stream's usage chunk; None: nothing."""
        asked: dict[str, Any] = {"model": world.model, "messages": [{"role": "user", "content": "Say something."}]}
        if stream:
            asked["stream"] = True
        if usage is not None:
            asked["stream_options"] = {"include_usage": usage}
        return await self.post(world, json.dumps(asked | more).encode(), leave_when=leave_when)

    async def post(
        self,
        world: World,
        body: bytes,
        *,
        chunked: bool = False,
        leave_when: Callable[[Reply], bool] = lambda _: False,
        **headers: str,
    ) -> Reply:
        """Ask with this body. chunked: without its length."""
        if chunked:
            headers["transfer-encoding"] = "chunked"
        sent = {"authorization": f"Bearer {world.user.token}", "content-type": "application/json", **headers}
        return await send(self.stack.ports.http, "POST", "/v1/chat/completions", sent, body, leave_when=leave_when)

    async def recorded(self, world: World, requests: int = 1) -> list[Recorded]:
        """Wait until so many of the user's requests are recorded and nothing is open or held; return their attempts."""
        letters = {world.ids[letter]: letter for letter in world.ids}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    left, rows = await self._state(world)
                    decisions = {row["request_id"].partition("/")[0] for row in rows}
                    if len(decisions) >= requests and not left["requests"] and not left["holds"]:
                        break
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise TimeoutError(f"left open: {dict(left)}, recorded: {[dict(row) for row in rows]}") from None
        assert left["held_usd"] == 0
        assert left["spent_usd"] == sum(row["cost_usd"] for row in rows)
        return [_recorded(row, letters) for row in rows]

    async def until_no_server_is_healthy(self) -> None:
        """Wait until Envoy finds none that could decide, or be told what became of requests."""
        async with asyncio.timeout(PATIENCE_S):
            while "cluster.llmrouter_gateway.membership_healthy: 0" not in await self._stats("membership_healthy"):
                await asyncio.sleep(0.05)

    def complaints(self) -> list[str]:
        """Return the errors in Envoy's log, those of Lua among them: Envoy goes on when a filter fails."""
        log = (self.stack.home / "logs" / "envoy.log").read_text(encoding="utf-8")
        errors = (
            line for line in log.splitlines() if any(word in line for word in ("[error]", "[critical]", "script log"))
        )
        return [line for line in errors if "body_size_limit" not in line]  # that one tells of clients

    async def _state(self, world: World) -> tuple[Any, Any]:
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            return (
                await connection.fetchrow(OPEN, world.user.id),
                await connection.fetch(RECORDED, world.user.id),
            )

    async def _world(self, tls: Mapping[str, ssl.SSLContext]) -> World:
        mark, user_id = uuid.uuid4().hex[:12], uuid.uuid4()
        providers = {
            letter: await self._cleanup.enter_async_context(provider(letter, tls=tls.get(letter)))
            for letter in CONTEXTS
        }
        return World(
            model=f"model-{mark}",
            providers=providers,
            ids={letter: uuid.uuid4() for letter in CONTEXTS},
            keys={letter: f"sk-made-up-{letter.lower()}-{mark}" for letter in CONTEXTS},
            user=User(user_id, self.stack.identity.mint("user", user_id)),
        )

    async def _until_known(self, world: World, model: str) -> None:
        """Wait until the server has heard that Envoy has the provider of this model, and each of its threads has it."""
        headers = {"authorization": f"Bearer {world.user.token}"}
        reply = None
        async with asyncio.timeout(MAKING_S):
            while reply is None or reply.status != 200:
                reply = await send(self.stack.ports.http, "GET", f"/v1/models/{model}", headers)
                await asyncio.sleep(0.02)  # fewer than the user's requests a second
            while len(set(await self._clusters_by_thread())) != 1:
                await asyncio.sleep(0.02)

    async def _until_in_envoy(self, ids: list[UUID]) -> None:
        """Wait until Envoy has these providers with their addresses, besides the one that leads nowhere.

        The server would name them after a while even if Envoy had none of them.
        """
        wanted = {f"cluster.{cluster_name(each)}.membership_total: 2" for each in ids}
        async with asyncio.timeout(MAKING_S):
            while not wanted <= set(await self._stats("membership_total")):
                await asyncio.sleep(0.05)

    async def _clusters_by_thread(self) -> list[str]:
        """Return how many clusters each of Envoy's threads has: it says that it has one a moment before all do."""
        return [line.rpartition(" ")[2] for line in await self._stats("clusters_inflated")]

    async def _stats(self, name: str) -> list[str]:
        """Return the lines of Envoy's figures that end so."""
        reader, writer = await asyncio.open_unix_connection(str(self.stack._admin_socket()))
        writer.write(f"GET /stats?filter={name} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
        said = (await reader.read()).decode()
        writer.close()
        return [line for line in said.splitlines() if f"{name}: " in line]


@asynccontextmanager
async def chat_stack(*, silence_s: int = LONG_SILENCE_S) -> AsyncIterator[ChatStack]:
    """Run it until the end of the block, without the seeded providers.

    silence_s: how long a provider may say nothing, before the first byte or later.
    """

    folder = make_open_folder()
    authority, ca_file = Authority(folder), folder / "ca.pem"
    ca_file.write_text(authority.pem)

    def adjusted(parameters: EdgeParameters) -> EdgeParameters:
        return replace(parameters, gateway_silence_s=silence_s, gateway_longest_s=LONGEST_S, ca_file=ca_file)

    stack = LocalStack(
        folder / "stack",
        ports=Ports(http=0, grpc=0, metrics=0),
        durable=False,
        server_env={
            "GATEWAY_STREAM_SECONDS": str(silence_s),
            "GATEWAY_ANSWER_SECONDS": str(silence_s),
            "PROVIDER_REST_SECONDS": str(REST_S),
        },
        adjust_edge=adjusted,
    )
    try:
        async with AsyncExitStack() as cleanup:
            await cleanup.enter_async_context(stack)
            pool = await cleanup.enter_async_context(asyncpg.create_pool(stack.database_url, min_size=1, max_size=8))
            await pool.execute(DISABLE_SEED)
            yield ChatStack(stack, authority, silence_s, pool, cleanup)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _recorded(row: Any, letters: Mapping[UUID, str]) -> Recorded:
    cost = (row["input_tokens"] * PRICE_IN + row["output_tokens"] * PRICE_OUT) / 1_000_000
    assert row["cost_usd"] == cost
    return Recorded(
        decision_id=row["request_id"].partition("/")[0],
        number=row["number"],
        at=letters[row["provider_id"]],
        payer=row["payer"],
        succeeded=row["status"] == "success",
        failure=row["failure"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        cost_usd=row["cost_usd"],
        latency_ms=row["latency_ms"],
        is_estimated=row["is_estimated"],
        error_message=row["error_message"],
    )
