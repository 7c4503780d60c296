"""A catalogue that a test changes, and the discovery that serves it on a port."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway.envoy_process import SECRET
from llmrouter_server import errors
from llmrouter_server.gateway.clusters import Upstream
from llmrouter_server.gateway.discovery import SETTLE_S, ClusterDiscovery
from llmrouter_server.gateway.server import GatewayServer
from llmrouter_server.runtime.local_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LIMIT_S = 20.0


class Catalogue:
    """What the discovery reads, and a clock."""

    def __init__(self, *upstreams: Upstream) -> None:
        self.upstreams: Sequence[Upstream] = upstreams
        self.readings = 0
        self.is_away = False
        self.now = 1000.0

    async def read(self) -> Sequence[Upstream]:
        self.readings += 1
        if self.is_away:
            raise errors.unavailable()
        return self.upstreams


def new(endpoint: str = "https://a.test/v1", provider_id: uuid.UUID | None = None, *, on: bool = True) -> Upstream:
    return Upstream(provider_id or uuid.uuid4(), endpoint, on)


@asynccontextmanager
async def served(
    catalogue: Catalogue, port: int = 0, *, settle_s: float = SETTLE_S
) -> AsyncIterator[tuple[ClusterDiscovery, int]]:
    discovery = ClusterDiscovery(catalogue.read, clock=lambda: catalogue.now, settle_s=settle_s, spread_s=0.0)
    port = port or free_ports(1)[0]
    server = GatewayServer(f"127.0.0.1:{port}", SECRET, [discovery.handler()], reuse_port=False)
    await server.start()
    await discovery.start()
    try:
        yield discovery, port
    finally:
        await discovery.stop()
        await server.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def usable(discovery: ClusterDiscovery, upstream: Upstream) -> bool:
    return discovery.is_usable(upstream.provider_id, upstream.api_endpoint)
