"""docs/operations.md: two replicas behind Envoy are replaced one after the other, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.answers import checked
from gateway.behaviour import ok
from gateway.provider_server import provider
from llmrouter import AsyncClient
from llmrouter_server.runtime.resources import resource_dir
from server_process import server
from services.serving import edge_figures, serve_from
from services.stalls import Stalls
from services.steady_load import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llmrouter_server.runtime.envoy_config import EdgeParameters
    from llmrouter_server.runtime.local_process import Child
    from llmrouter_server.runtime.local_stack import LocalStack

AS_BY_DEFAULT = {"DRAIN_NOTICE_SECONDS": "3", "DRAIN_TIMEOUT_SECONDS": "25"}
DRAINED = ((signal.SIGTERM, 40.0),)
PATIENCE_S = 20.0
AT_ONCE = 100
STALLED_S = 0.5
MOST_PLAYS = 3


def with_another(folder: Path, grpc: int, gateway: int) -> Callable[[EdgeParameters], EdgeParameters]:
    """Let Envoy's configuration name a second replica, on these ports, as a name with two addresses would."""
    copy = folder / "envoy"
    shutil.copytree(resource_dir("envoy"), copy)
    text = (copy / "envoy.yaml").read_text()
    for first, port in (("SERVER", grpc), ("GATEWAY", gateway)):
        host, replica = f"${{{first}_HOST}}", f"${{{first}_PORT}}"
        one = f'{{endpoint: {{address: {{socket_address: {{address: "{host}", port_value: "{replica}"}}}}}}}}'
        assert text.count(one) == 1
        text = text.replace(one, f"{one}, {one.replace(replica, str(port))}")
    (copy / "envoy.yaml").write_text(text)
    return lambda parameters: replace(parameters, envoy_dir=copy)


@contextlib.contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """Choose ports that nobody is given until the end of the block; a server that names one can listen on it."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        yield [each.getsockname()[1] for each in sockets]


async def test_replicas_are_replaced_one_after_the_other_and_no_request_fails(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], open_folder: Path
) -> None:
    """Two checks that are late by a second take away the only replica that is up: then it is done again."""
    with held_ports(2) as (grpc, gateway):
        make = functools.partial(own_stack, adjust_edge=with_another(open_folder, grpc, gateway))
        for _ in range(MOST_PLAYS):
            async with Stalls() as stalls:
                failed = await replaced(make, open_folder, grpc, gateway)
            if not failed or stalls.longest_s < STALLED_S:
                break
        assert not failed


async def test_a_client_of_the_replicas_themselves_loses_no_call_when_one_ends(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], open_folder: Path
) -> None:
    """What a busy server has not begun to answer when it ends, gRPC calls cancelled."""

    async def ask(client: AsyncClient, first: Child) -> None:
        while first.is_running:
            await client.routing.route()
        await client.routing.route()

    with held_ports(1) as (port,):
        async with own_stack() as stack:
            key, token = (stack.home / "byok.key").read_text().strip(), stack.identity.mint("user")
            async with (
                server(open_folder, stack.database_url, stack.identity, port, key) as other,
                AsyncClient(f"ipv4:{stack.grpc_address},{other}", token=token, insecure=True) as client,
            ):
                calls = [asyncio.create_task(ask(client, stack.server)) for _ in range(AT_ONCE)]
                await stack.server.stop(*DRAINED)
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.gather(*calls)


async def replaced(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], folder: Path, grpc: int, gateway: int
) -> list[str]:
    """Replace two replicas under load, and return what failed."""
    async with provider("vLLM") as vllm, own_stack(server_env=AS_BY_DEFAULT) as stack:
        vllm.behave(ok(checked(20, delay_s=0.05)))

        def another(**changes: str) -> AbstractAsyncContextManager[str]:
            settings = {
                "GATEWAY_ADDRESS": f"127.0.0.1:{gateway}",
                "GATEWAY_SECRET": (stack.home / "gateway.secret").read_text().strip(),
                "ALLOW_PRIVATE_ENDPOINTS": "true",
                **changes,
            }
            key = (stack.home / "byok.key").read_text().strip()
            return server(folder, stack.database_url, stack.identity, grpc, key, **settings)

        await serve_from(stack, vllm.url)
        async with Load(stack) as load:
            async with another(**AS_BY_DEFAULT):
                await until_healthy(stack, 2)
                await load.more()
                await stack.server.stop(*DRAINED)
                await load.more()
                await stack.start_server()
                await until_healthy(stack, 2)
                await load.more()
            await load.more()
            async with another():
                await until_healthy(stack, 2)
                await load.more()
                await load.end()
        assert load.failed or len(vllm.chats) == load.ended["chat"] + load.ended["stream"]
        await stack.kill_server()  # to be over sooner
        return load.failed


async def until_healthy(stack: LocalStack, replicas: int) -> None:
    """Wait until Envoy finds so many healthy, for the API and for chat."""
    wanted = {f"cluster.{name}.membership_healthy: {replicas}" for name in ("llmrouter", "llmrouter_gateway")}
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= set(await edge_figures(stack, "membership_healthy")):
            await asyncio.sleep(0.05)
