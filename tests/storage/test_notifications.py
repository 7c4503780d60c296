"""Changes are heard of, and whoever listens knows when they may not have been."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from llmrouter_server.runtime.notifications import Notifications
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE_S = 10
CHANNEL = "llmrouter_user"
LISTENERS = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'llmrouter notifications'"


@pytest.fixture(scope="module")
async def url(migrated_database: Callable[[], Awaitable[str]]) -> str:
    return await migrated_database()


@pytest.fixture
async def sql(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


class Listener:
    """Remembers what it hears, and how often it had to start afresh."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        self.fresh = 0
        self.notifications = Notifications(url, {CHANNEL: self.hear}, on_live=self.begin)

    def hear(self, payload: str) -> None:
        if payload == "poison":
            raise ValueError(payload)
        self.heard.append(payload)

    def begin(self) -> None:
        self.fresh += 1

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await asyncio.sleep(0.01)


@pytest.fixture
async def listener(url: str) -> AsyncIterator[Listener]:
    listener = Listener(url)
    await listener.notifications.start()
    yield listener
    await listener.notifications.stop()


async def tell(sql: Any, payload: str) -> None:
    await sql.execute("select pg_notify($1, $2)", CHANNEL, payload)


async def test_what_is_told_is_heard_in_its_order(listener: Listener, sql: Any) -> None:
    assert listener.notifications.is_live
    for payload in ("a", "b", "c"):
        await tell(sql, payload)
    await listener.until(lambda: listener.heard == ["a", "b", "c"])


async def test_after_its_connection_is_killed_it_begins_afresh_and_hears_again(listener: Listener, sql: Any) -> None:
    for number in range(1, 4):
        await sql.execute(LISTENERS)
        await listener.until(lambda number=number: listener.fresh > number)
        assert listener.notifications.is_live
        await tell(sql, str(number))
        await listener.until(lambda number=number: str(number) in listener.heard)


async def test_a_payload_that_cannot_be_read_does_not_end_it(listener: Listener, sql: Any) -> None:
    for payload in ("poison", "after"):
        await tell(sql, payload)
    await listener.until(lambda: listener.heard == ["after"])
    assert listener.notifications.is_live


async def test_a_connection_that_is_silently_dead_is_noticed(url: str, sql: Any) -> None:
    async with Proxy(url) as proxy:
        listener = Listener(proxy.url)
        await listener.notifications.start()
        assert listener.notifications.is_live
        proxy.is_stalled = True
        await listener.until(lambda: not listener.notifications.is_live)
        proxy.is_stalled = False
        await listener.until(lambda: listener.fresh == 2)
        await tell(sql, "again")
        await listener.until(lambda: listener.heard == ["again"])
        await listener.notifications.stop()


async def test_without_a_database_it_is_not_live_and_can_be_stopped() -> None:
    listener = Listener("postgresql://nobody@127.0.0.1:1/nothing")
    await listener.notifications.start()
    assert not listener.notifications.is_live
    await asyncio.wait_for(listener.notifications.stop(), PATIENCE_S)
