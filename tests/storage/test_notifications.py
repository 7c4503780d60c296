"""Changes are heard of, and whoever listens knows when they may not have been."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from llmrouter_server.routing.state import UserState, UserStates
from llmrouter_server.runtime import notifications as runtime_notifications
from llmrouter_server.runtime.notifications import Notifications
from proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE_S = 20
NOTICED_S = 3
"""A second, and as much again twice for a busy machine."""
MEASUREMENTS = 10
CHANNEL = "llmrouter_user"
LISTENERS = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = 'llmrouter notifications' and datname = current_database()"""


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


async def stopped_in_time(notifications: Notifications) -> None:
    """Stop it. Not with wait_for, whose own cancellation would help it to end."""
    done, _ = await asyncio.wait({asyncio.create_task(notifications.stop())}, timeout=PATIENCE_S)
    assert done, "it did not stop"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no machine that stands still for a moment be taken for a lost connection."""
    for name in ("CONNECT_TIMEOUT_S", "PING_TIMEOUT_S"):
        monkeypatch.setattr(runtime_notifications, name, PATIENCE_S)


@pytest.fixture
async def listener(url: str, patient: None) -> AsyncIterator[Listener]:  # noqa: ARG001 - what it has set is wanted
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


async def test_what_cannot_be_read_may_have_been_news_of_anything(listener: Listener, sql: Any) -> None:
    for payload in ("poison", "after"):
        await tell(sql, payload)
    await listener.until(lambda: listener.heard == ["after"])
    assert listener.notifications.is_live
    assert listener.fresh == 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("payload", ["", "no uuid", "USER 2026-13-01 1 0", "USER 2026-03-01 x 0", "USER 2026-03-01"])
async def test_no_payload_is_taken_for_what_it_is_not(url: str, sql: Any, payload: str) -> None:
    """Whatever anybody tells on our channels, what is remembered is forgotten rather than left as it was."""
    month = date(2026, 3, 1)
    reads: list[uuid.UUID] = []

    async def read(user_id: uuid.UUID, of: date) -> UserState:
        reads.append(user_id)
        return UserState(month=of)

    def now() -> datetime:
        return datetime(month.year, month.month, 5, tzinfo=UTC)

    users = UserStates(read, is_told=lambda: notifications.is_live, most=9, now=now)
    heard = {"llmrouter_user": users.user_changed, "llmrouter_spend": users.spend_changed}
    notifications = Notifications(url, heard, on_live=users.forget_all)
    await notifications.start()
    user = uuid.uuid4()
    for channel in heard:
        await users.get(user)
        known = len(reads)
        await sql.execute("select pg_notify($1, $2)", channel, payload.replace("USER", str(user)))
        async with asyncio.timeout(PATIENCE_S):
            while len(reads) == known:
                await users.get(user)
                await asyncio.sleep(0.01)
    assert notifications.is_live
    await stopped_in_time(notifications)


async def test_a_connection_that_is_silently_dead_is_noticed(url: str, sql: Any) -> None:
    async with Proxy(url) as proxy:
        listener = Listener(proxy.url)
        await listener.notifications.start()
        took: list[float] = []
        while len(took) < MEASUREMENTS and min(took, default=NOTICED_S) >= NOTICED_S:
            await listener.until(lambda: listener.notifications.is_live)
            proxy.is_stalled, stalled = True, time.monotonic()
            await listener.until(lambda: not listener.notifications.is_live)
            took.append(time.monotonic() - stalled)
            proxy.is_stalled = False
        assert min(took) < NOTICED_S
        await listener.until(lambda: listener.notifications.is_live)
        async with asyncio.timeout(PATIENCE_S):
            while not listener.heard:  # a machine that stands still loses it once more
                await tell(sql, "again")
                await asyncio.sleep(0.05)
        assert set(listener.heard) == {"again"}
        await stopped_in_time(listener.notifications)


async def test_without_a_database_it_is_not_live_and_can_be_stopped() -> None:
    listener = Listener("postgresql://nobody@127.0.0.1:1/nothing")
    await listener.notifications.start()
    assert not listener.notifications.is_live
    await stopped_in_time(listener.notifications)


async def test_it_can_be_stopped_while_it_connects(url: str) -> None:
    async with Proxy(url) as proxy:
        proxy.is_stalled = True
        listener = Listener(proxy.url)
        starting = asyncio.create_task(listener.notifications.start())
        async with asyncio.timeout(PATIENCE_S):
            while not proxy.connections:
                await asyncio.sleep(0.01)
        await stopped_in_time(listener.notifications)
        await asyncio.wait({starting}, timeout=PATIENCE_S)
        assert starting.done()
        assert (listener.notifications.is_live, listener.fresh) == (False, 0)


async def test_it_can_be_stopped_while_its_connection_is_lost(url: str, sql: Any) -> None:
    for _ in range(20):
        listener = Listener(url)
        await listener.notifications.start()
        await asyncio.gather(sql.execute(LISTENERS), stopped_in_time(listener.notifications))
        assert not listener.notifications.is_live


async def test_operators_are_told_once_that_it_is_lost_and_once_that_it_is_back(
    listener: Listener, sql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await sql.execute(LISTENERS)
    await listener.until(lambda: listener.fresh == 2)
    assert caplog.messages == ["changes are not heard of; every use looks for them", "changes are heard of"]
