from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from conftest import make_open_folder
from llmrouter import AsyncClient
from llmrouter_server.runtime.local_stack import LocalStack, Ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

Connect = "Callable[[str], AsyncClient]"


@pytest.fixture(scope="session")
async def connect(stack: LocalStack) -> AsyncIterator[Callable[[str], AsyncClient]]:
    """Make clients of the shared stack: one for each token."""
    clients: dict[str, AsyncClient] = {}

    def client(token: str) -> AsyncClient:
        if token not in clients:
            clients[token] = AsyncClient(stack.grpc_address, token=token)
        return clients[token]

    yield client
    for each in clients.values():
        await each.close()


@pytest.fixture(scope="session")
def own_stack() -> Callable[..., AbstractAsyncContextManager[LocalStack]]:
    """Make a stack of one's own, to break it."""

    @asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[LocalStack]:
        folder = make_open_folder()
        free = Ports(http=0, grpc=0, metrics=0)
        try:
            async with LocalStack(folder / "stack", ports=free, durable=False, **options) as running:
                yield running
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return make
