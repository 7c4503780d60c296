from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openai import AsyncOpenAI

from databases import started
from gateway.chat_stack import SILENCE_S, ChatStack, World, chat_stack
from gateway_samples import Gateway, running
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture(scope="session")
async def chat() -> AsyncIterator[ChatStack]:
    """The whole product in front of misbehaving providers; for tests that break none of its parts."""
    async with chat_stack() as running:
        yield running


@pytest.fixture(scope="session")
async def impatient() -> AsyncIterator[ChatStack]:
    """The same, where a provider's silence is soon over: for tests of that, and for no others."""
    async with chat_stack(silence_s=SILENCE_S) as running:
        yield running


@pytest.fixture
async def world(chat: ChatStack) -> World:
    return await chat.new_world()


@pytest.fixture
async def client(chat: ChatStack, world: World) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own, for the world's user."""
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{chat.stack.ports.http}/v1", api_key=world.user.token) as opened:
        yield opened


@pytest.fixture(scope="session")
async def database_url(migrated_database: Callable[[], Awaitable[str]]) -> str:
    return await migrated_database()


@pytest.fixture(scope="session")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await started(Database(database_url, min_size=2, max_size=10))
    yield database
    await database.stop()


@pytest.fixture
async def gateway(database: Database) -> AsyncIterator[Gateway]:
    """What keeps the books of chat requests, without Envoy."""
    gateway = await running(database)
    yield gateway
    await gateway.stop()
