"""A provider of one's own in the place of the catalogue's local vLLM, for chat through the whole product."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg

import http_json

if TYPE_CHECKING:
    from llmrouter_server.runtime.local_stack import LocalStack

MODEL = "Qwen/Qwen2.5-32B-Instruct"
PATIENCE_S = 20.0
TAKE_PLACE = "update llm_providers set api_endpoint = $1 where name = 'Local vLLM'"


async def serve_from(stack: LocalStack, url: str) -> None:
    """Let the local vLLM be at this address, and wait until the gateway sends chats there."""
    connection = await asyncpg.connect(stack.database_url, timeout=10)
    try:
        await connection.execute(TAKE_PLACE, url)
    finally:
        await connection.close(timeout=5)
    place = urlsplit(url).netloc
    async with asyncio.timeout(PATIENCE_S):
        while f"::{place}::" not in await _edge(stack, "/clusters"):  # else the server may not have heard of it yet
            await asyncio.sleep(0.05)
    await until_served(stack)


async def until_served(stack: LocalStack) -> None:
    """Wait until Envoy has the provider, and the server has heard so."""
    url = f"http://127.0.0.1:{stack.ports.http}/v1/models/{MODEL}"
    async with asyncio.timeout(PATIENCE_S):
        while (await asyncio.to_thread(http_json.call, "GET", url, token=stack.identity.mint("user"))).status != 200:
            await asyncio.sleep(0.05)


async def edge_figures(stack: LocalStack, name: str) -> list[str]:
    """Return the lines of Envoy's figures whose names end so."""
    return [line for line in (await _edge(stack, f"/stats?filter={name}")).splitlines() if f"{name}: " in line]


async def _edge(stack: LocalStack, path: str) -> str:
    """Ask Envoy's own interface."""
    reader, writer = await asyncio.open_unix_connection(str(stack._admin_socket()))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            return (await reader.read()).decode()
    finally:
        writer.close()
