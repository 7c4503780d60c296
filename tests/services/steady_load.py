"""Decisions, chats and streams through Envoy, at a steady pace, while something else goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from gateway.chat_client import send

if TYPE_CHECKING:
    from types import TracebackType

    from llmrouter_server.runtime.local_stack import LocalStack

EVERY_S = 0.1
EVERY = {"route": 1, "chat": 1, "stream": 3}
"""What is asked for, and at which of these times: each, or each third."""
MORE = 3
PATIENCE_S = 60.0


class Load:
    """Asks for decisions, chats and streams, steadily, until the end of the block.

    asks_again: when the answer is 503, as its Retry-After says; else that is a failure.
    """

    def __init__(self, stack: LocalStack, *, asks_again: bool = False) -> None:
        self._stack, self._asks_again = stack, asks_again
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
        while self._asks_again and reply.status == 503 and "retry-after" in reply.headers:
            await asyncio.sleep(float(reply.headers["retry-after"]))
            reply = await send(self._stack.ports.http, "POST", path, headers, json.dumps(body).encode())
        self.ended[what] += 1
        if reply.status != 200 or reply.end != "whole" or (what == "stream" and not reply.is_done):
            self.failed.append(f"{what}: {reply}")
