from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client_stand_in import Route, StandIn, async_route, serving, sync_route
from client_world import ClientWorld, OwnServer, own_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@pytest.fixture(scope="session")
async def router(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[OwnServer]:
    async with own_server(await migrated_database()) as running:
        yield running


@pytest.fixture
async def client_world(router: OwnServer) -> ClientWorld:
    return await router.new_world()


@pytest.fixture
def stand_in() -> Iterator[tuple[StandIn, str]]:
    servicer = StandIn()
    with serving(servicer) as address:
        yield servicer, address


@pytest.fixture(params=[async_route, sync_route], ids=["async", "sync"])
def route(request: pytest.FixtureRequest) -> Route:
    """Call Route with a client of its own, which is closed again."""
    return request.param
