"""A part of the product is killed under a hundred mixed chat requests: nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from conftest import User
from databases import started
from gateway import answers
from gateway.behaviour import late, no_usage, ok
from gateway.chat_client import Reply
from gateway.chat_stack import SILENCE_S, chat_stack
from gateway.faults import cut, reset_after, reset_before_headers, silent
from gateway.refusals import status, unavailable
from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.gateway.journal import Journal, _NoKeys
from llmrouter_server.gateway.reporting import Reporter
from llmrouter_server.gateway.store import GatewayRequestStore
from llmrouter_server.runtime.database import Database
from llmrouter_server.usage.recorder import UsageRecorder
from llmrouter_server.usage.store import UsageStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
    from pathlib import Path

    from gateway.behaviour import Fault
    from gateway.chat_stack import ChatStack, World

REQUESTS = 100
APART_S = 0.01
ANSWERED_BEFORE = 25
"""How many are answered when the part is killed; the others are anywhere on their way, or yet to come."""
AWAY_S = 0.5
MOST_OUTPUT = 100
TIGHT_USD = Decimal("0.004")
"""Room for two requests at once."""
LATER = timedelta(hours=1)
"""By then nobody waits for a report any more."""
RIPE = timedelta(seconds=10)
PATIENCE_S = 20.0

SLOW = ok(answers.checked(20, delay_s=0.04))
BEHAVIOURS: tuple[tuple[Fault, Fault, Fault], ...] = (
    (SLOW, ok(), ok()),
    (unavailable(), SLOW, ok()),
    (late(0.7, ok()), ok(), ok()),
    (reset_before_headers(), status(401), no_usage()),
    (silent(), SLOW, ok()),
    (reset_after(3), cut(3), ok()),
)
"""Of A, B and C in each world."""

SET_BUDGET = "insert into user_llm_settings (user_id, monthly_budget_usd) values ($1, $2)"
LEFT = """
select (select count(*) from llm_gateway_requests where user_id = any ($1)) as requests,
    (select count(*) from llm_budget_holds where user_id = any ($1)) as holds"""
BOOKS = """
select user_id,
    (select monthly_budget_usd from user_llm_settings s where s.user_id = u.user_id) as budget,
    (select coalesce(sum(spent_usd), 0) from llm_budget_ledger l where l.user_id = u.user_id) as spent,
    (select coalesce(sum(held_usd), 0) from llm_budget_ledger l where l.user_id = u.user_id) as held,
    (select coalesce(sum(amount_usd), 0) from llm_budget_holds h where h.user_id = u.user_id) as holds,
    (select coalesce(sum(cost_usd), 0) from llm_usage_logs r where r.user_id = u.user_id) as recorded,
    (select coalesce(sum(cost_usd), 0) from llm_usage_daily d where d.user_id = u.user_id) as summed
from unnest($1::uuid[]) as u (user_id)"""
RECORDS = "select decision_id, request_id, status from llm_usage_logs where user_id = any ($1) order by request_id"


@dataclass(frozen=True, slots=True)
class Load:
    """Who asked, what they saw, and the keys that providers were shown for it."""

    users: Sequence[uuid.UUID]
    answers: Sequence[Reply]
    keys: Collection[str]
    model: str

    @property
    def decided(self) -> dict[uuid.UUID, Reply]:
        """What came from a provider, whole or not, by decision."""
        name = "x-llmrouter-decision-id"
        return {uuid.UUID(reply.headers[name]): reply for reply in self.answers if name in reply.headers}

    @property
    def complete(self) -> dict[uuid.UUID, Reply]:
        """What their clients take for a good answer."""
        return {decision_id: reply for decision_id, reply in self.decided.items() if _is_complete(reply)}


def _is_complete(reply: Reply) -> bool:
    return reply.end == "whole" and reply.status == 200 and (reply.is_done or not reply.is_stream)


@dataclass(frozen=True, slots=True)
class Bookkeeper:
    """The parts of a server that look after what was left behind, over the stack's database."""

    stack: ChatStack
    reporter: Reporter
    budget: BudgetStore
    database: Database

    async def rows(self, query: str, load: Load) -> list[Any]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(query, load.users))

    async def reconcile(self) -> None:
        """Read the journal as a server does, but without waiting for its last lines to become old."""
        await Journal(self.stack.stack.journal, self.reporter, lambda: datetime.now(UTC) + RIPE).reconcile()

    async def expire(self) -> None:
        """Do what a server does about requests that nobody reports, 18 minutes early."""
        await self.reporter.expire_lost(datetime.now(UTC) + LATER)
        await self.budget.expire(datetime.now(UTC) + LATER)


@pytest.fixture(scope="module")
async def doomed() -> AsyncIterator[ChatStack]:
    """A stack of this file's own, whose parts its tests kill."""
    async with chat_stack(silence_s=SILENCE_S) as running:
        yield running


@pytest.fixture
async def keeper(doomed: ChatStack) -> AsyncIterator[Bookkeeper]:
    database = Database(doomed.stack.database_url, min_size=1, max_size=3)
    budget = BudgetStore(database)
    recorder = UsageRecorder(UsageStore(database), observe=lambda _: None, keys=_NoKeys())
    requests = GatewayRequestStore(database, most_at_once=0)
    async with AsyncExitStack() as parts:
        await started(database)
        parts.push_async_callback(database.stop)
        await recorder.start()
        parts.push_async_callback(recorder.stop)
        yield Bookkeeper(doomed, Reporter(recorder, requests, budget), budget, database)


async def test_a_killed_server_takes_nothing_with_it(doomed: ChatStack, keeper: Bookkeeper) -> None:
    async def kill_and_start() -> None:
        await doomed.stack.kill_server()
        await asyncio.sleep(AWAY_S)  # requests end meanwhile, and nobody hears of it
        await doomed.stack.start_server()

    load = await under_load(keeper, kill_and_start)
    assert_nobody_is_over_budget(await keeper.rows(BOOKS, load))

    async def are_recorded() -> list[str]:
        await keeper.reconcile()
        return await unrecorded(keeper, load)

    # The journal knows all of them, so that nothing that was answered is estimated.
    await until_nothing(are_recorded)
    await assert_all_is_well_in_the_end(keeper, load)


async def test_a_killed_envoy_takes_nothing_with_it(doomed: ChatStack, keeper: Bookkeeper) -> None:
    async def kill_and_start() -> None:
        await doomed.stack.envoy.stop()
        await doomed.stack.start_envoy()

    load = await under_load(keeper, kill_and_start)
    assert_nobody_is_over_budget(await keeper.rows(BOOKS, load))
    await keeper.reconcile()
    [left] = await keeper.rows(LEFT, load)
    assert left["requests"] > 0  # what became of these, nobody knows
    await assert_all_is_well_in_the_end(keeper, load)


async def test_a_killed_postgres_takes_nothing_with_it(doomed: ChatStack, keeper: Bookkeeper) -> None:
    async def kill_and_start() -> None:
        postmaster = doomed.stack.postgres.server
        os.kill(postmaster.pid, signal.SIGKILL)
        assert await postmaster.wait() == -signal.SIGKILL
        await asyncio.sleep(AWAY_S)  # requests end meanwhile, and cannot be recorded
        await doomed.stack.start_postgres()

    load = await under_load(keeper, kill_and_start)
    assert_nobody_is_over_budget(await keeper.rows(BOOKS, load))
    # The server has kept what it could not record: neither the journal nor an estimate is needed.
    await until_nothing(lambda: unrecorded(keeper, load))
    await assert_all_is_well_in_the_end(keeper, load)


async def under_load(keeper: Bookkeeper, kill_and_start: Callable[[], Awaitable[None]]) -> Load:
    """Ask a hundred times, kill in the middle of that, and wait until every client knows; then until all is well."""
    chat = keeper.stack
    worlds = await chat.new_worlds(len(BEHAVIOURS))
    keys = {key for world in worlds for key in world.keys.values()}
    for world, behaviours in zip(worlds, BEHAVIOURS, strict=True):
        for provider, behaviour in zip(world.providers.values(), behaviours, strict=True):
            provider.behave(behaviour)
        own = f"sk-own-{uuid.uuid4().hex}"
        keys.add(own)
        await chat.give_key(world, "B", own)
    askers = [asker for world in worlds for asker in await _askers(keeper, world)]
    tasks = [asyncio.create_task(_ask(chat, askers[n % len(askers)], n)) for n in range(REQUESTS)]
    await until(lambda: sum(task.done() and _is_complete(task.result()) for task in tasks) >= ANSWERED_BEFORE)
    assert not all(task.done() for task in tasks)
    await kill_and_start()
    answers = [await task for task in tasks]
    load = Load([world.user.id for world in askers], answers, keys, worlds[0].model)
    assert len(load.complete) >= ANSWERED_BEFORE
    assert any(reply.is_stream for reply in load.complete.values())
    assert "budget_exceeded" in {reply.error.get("code") for reply in answers}
    worlds[0].a.behave()

    async def wrong() -> list[str]:
        reply = await _ask(chat, worlds[0], 0)
        return [] if reply.status == 200 else [repr(reply)]

    await until_nothing(wrong)
    shown = {
        seen.headers["authorization"] for world in worlds for each in world.providers.values() for seen in each.chats
    }
    assert shown <= {f"Bearer {key}" for key in keys}
    assert len(shown) > len(worlds)
    return load


async def _askers(keeper: Bookkeeper, world: World) -> list[World]:
    """Return the world's user, who has a large budget and a key, one with a tight budget, and one with none."""
    users = [uuid.uuid4(), uuid.uuid4()]
    async with keeper.database.connection() as connection:
        await connection.execute(SET_BUDGET, users[0], TIGHT_USD)
    mint = keeper.stack.stack.identity.mint
    return [world, *(replace(world, user=User(user, mint("user", user))) for user in users)]


async def _ask(chat: ChatStack, world: World, number: int) -> Reply:
    """Ask when it is this one's turn. The first and each other one for a stream."""
    await asyncio.sleep(number * APART_S)
    try:
        return await chat.ask(world, stream=number % 2 == 0, max_tokens=MOST_OUTPUT)
    except ConnectionError:  # nobody listens
        return Reply(end="broken")


def assert_nobody_is_over_budget(books: Sequence[Any]) -> None:
    assert [
        dict(row) for row in books if row["budget"] is not None and row["spent"] + row["held"] > row["budget"]
    ] == []
    assert [dict(row) for row in books if row["held"] != row["holds"]] == []


async def unrecorded(keeper: Bookkeeper, load: Load) -> list[str]:
    """Tell which good answers are not recorded as what they were: each attempt once, the last one a success."""
    found = await _records(keeper, load)
    wrong = []
    for decision_id, reply in load.complete.items():
        attempts = int(reply.headers["x-llmrouter-attempts"])
        expected = [(f"{decision_id}/{number + 1}", number + 1 == attempts) for number in range(attempts)]
        if found[decision_id] != expected:
            wrong.append(f"{decision_id}, {attempts} attempts: {found[decision_id]}")
    return wrong


async def _records(keeper: Bookkeeper, load: Load) -> dict[uuid.UUID, list[tuple[str, bool]]]:
    found: dict[uuid.UUID, list[tuple[str, bool]]] = defaultdict(list)
    for row in await keeper.rows(RECORDS, load):
        found[row["decision_id"]].append((row["request_id"], row["status"] == "success"))
    return found


async def assert_all_is_well_in_the_end(keeper: Bookkeeper, load: Load) -> None:
    await keeper.expire()
    found = await _records(keeper, load)
    assert [dict(row) for row in await keeper.rows(LEFT, load)] == [{"requests": 0, "holds": 0}]
    ids = Counter(request_id for records in found.values() for request_id, _ in records)
    assert [request_id for request_id, times in ids.items() if times != 1] == []
    # Whatever a client has seen of a provider's answer was recorded; a good answer either as such or by one estimate.
    assert [decision_id for decision_id in load.decided if not found[decision_id]] == []
    estimated = [[(f"{decision_id}/1", False)] for decision_id in load.complete]
    assert [line for line in await unrecorded(keeper, load) if not any(f": {each}" in line for each in estimated)] == []
    books = await keeper.rows(BOOKS, load)
    assert_nobody_is_over_budget(books)
    assert [dict(row) for row in books if row["held"] or not row["spent"] == row["recorded"] == row["summed"]] == []
    home = keeper.stack.stack.home
    assert {"gateway.log", "postgres"} <= holders(home, [load.model])  # it can be found
    assert holders(home, load.keys) == set()


def holders(home: Path, texts: Collection[str]) -> set[str]:
    """Return in which logs, configurations and parts of the stack's folder any of these stands."""
    wanted, found = [text.encode() for text in texts], set()
    for folder, _, names in os.walk(home, followlinks=True):
        for name in names:
            path = type(home)(folder, name)
            if path.is_file():
                content = path.read_bytes()
                if any(each in content for each in wanted):
                    part = path.relative_to(home).parts[0]
                    found.add(name if part in ("logs", name) else part)
    return found


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_nothing(wrong: Callable[[], Awaitable[list[str]]]) -> None:
    """Wait until nothing is wrong; AssertionError with what still is."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while found := await wrong():
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.05)
