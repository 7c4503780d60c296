"""docs/operations.md: two replicas behind Envoy are replaced one after the other, and nobody notices."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from gateway.answers import checked
from gateway.behaviour import ok
from gateway.chat_client import send
from gateway.provider_server import provider
from llmrouter_server.runtime.local_ports import free_ports
from llmrouter_server.runtime.resources import resource_dir
from server_process import server
from services.serving import edge_figures, serve_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from llmrouter_server.runtime.envoy_config import EdgeParameters
    from llmrouter_server.runtime.local_stack import LocalStack

EVERY_S = 0.1
EVERY = {"route": 1, "chat": 1, "stream": 3}
"""What is asked for, and at which of these times: each, or each third."""
MORE = 3
AS_BY_DEFAULT = {"DRAIN_NOTICE_SECONDS": "3", "DRAIN_TIMEOUT_SECONDS": "25"}
DRAINED = ((signal.SIGTERM, 40.0),)
PATIENCE_S = 20.0


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


class Load:
    """Asks for decisions, chats and streams, steadily, until the end of the block."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._asking: set[asyncio.Task[None]] = set()
        self.ended: Counter[str] = Counter()
        self.failed: list[str] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        for each in self._asking:
            each.cancel()
        await asyncio.gather(self._task, *self._asking, return_exceptions=True)

    async def more(self) -> None:
        """Wait until each has been answered a few times more."""
        before = self.ended.copy()
        async with asyncio.timeout(PATIENCE_S):
            while any(self.ended[what] < before[what] + MORE for what in EVERY):
                await asyncio.sleep(EVERY_S)

    async def end(self) -> None:
        """Ask no more, and wait for the answers that are under way."""
        self._task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._asking)

    async def _run(self) -> None:
        for number in itertools.count():
            for what in (each for each, times in EVERY.items() if number % times == 0):
                task = asyncio.create_task(self._ask(what))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await asyncio.sleep(EVERY_S)

    async def _ask(self, what: str) -> None:
        path = "/api/v2/llm/route" if what == "route" else "/v1/chat/completions"
        body: dict[str, Any] = {"power_level": "ECO"}
        if what != "route":
            body = {"model": "eco", "messages": [{"role": "user", "content": "hello"}], "stream": what == "stream"}
        headers = {"authorization": f"Bearer {self._stack.identity.mint('user')}", "content-type": "application/json"}
        reply = await send(self._stack.ports.http, "POST", path, headers, json.dumps(body).encode())
        self.ended[what] += 1
        if reply.status != 200 or reply.end != "whole" or (what == "stream" and not reply.is_done):
            self.failed.append(f"{what}: {reply}")


async def test_replicas_are_replaced_one_after_the_other_and_no_request_fails(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], open_folder: Path
) -> None:
    grpc, gateway = free_ports(2)
    async with (
        provider("vLLM") as vllm,
        own_stack(server_env=AS_BY_DEFAULT, adjust_edge=with_another(open_folder, grpc, gateway)) as stack,
    ):
        vllm.behave(ok(checked(20, delay_s=0.05)))

        def another(**changes: str) -> AbstractAsyncContextManager[str]:
            settings = {
                "GATEWAY_ADDRESS": f"127.0.0.1:{gateway}",
                "GATEWAY_SECRET": (stack.home / "gateway.secret").read_text().strip(),
                "ALLOW_PRIVATE_ENDPOINTS": "true",
                **changes,
            }
            key = (stack.home / "byok.key").read_text().strip()
            return server(open_folder, stack.database_url, stack.identity, grpc, key, **settings)

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
        assert not load.failed
        assert len(vllm.chats) == load.ended["chat"] + load.ended["stream"]
        await stack.kill_server()  # to be over sooner


async def until_healthy(stack: LocalStack, replicas: int) -> None:
    """Wait until Envoy finds so many healthy, for the API and for chat."""
    wanted = {f"cluster.{name}.membership_healthy: {replicas}" for name in ("llmrouter", "llmrouter_gateway")}
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= set(await edge_figures(stack, "membership_healthy")):
            await asyncio.sleep(0.05)
