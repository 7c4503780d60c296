from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_world import ClientWorld, OwnServer, own_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture(scope="session")
async def router(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[OwnServer]:
    async with own_server(await migrated_database()) as running:
        yield running


@pytest.fixture
async def client_world(router: OwnServer) -> ClientWorld:
    return await router.new_world()
