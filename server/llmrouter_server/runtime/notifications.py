"""Hears what Postgres tells (LISTEN), on a connection of its own, and says whether it can be relied on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from llmrouter_server.runtime import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
PING_INTERVAL_S = 0.5
PING_TIMEOUT_S = 0.5
"""A connection that is silently dead is noticed within a second."""
RETRY_DELAY_S = 0.5


class Notifications:
    """Calls a listener for each notification. While `is_live` is false, some may be missed.

    `on_live` is called whenever it becomes live, after LISTEN: whatever was remembered from before must be forgotten.
    """

    def __init__(
        self,
        url: str,
        listeners: Mapping[str, Callable[[str], None]],
        *,
        on_live: Callable[[], None] = lambda: None,
    ) -> None:
        self._url, self._listeners, self._on_live = url, listeners, on_live
        self._task: asyncio.Task[None] | None = None
        self.is_live = False

    async def start(self) -> None:
        """Begin to listen; returns before it is live when the database is away."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._keep_listening(first), name="notifications")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first.wait(), CONNECT_TIMEOUT_S)

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_listening(self, first: asyncio.Event) -> None:
        while True:
            try:
                await self._listen(first)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if self.is_live:
                    log.warning("the connection for notifications is lost", extra={"error": type(error).__name__})
            self._tell(live=False)
            first.set()
            await asyncio.sleep(RETRY_DELAY_S)

    async def _listen(self, first: asyncio.Event) -> None:
        connection: Any = await asyncpg.connect(
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=PING_TIMEOUT_S,
            server_settings={"application_name": "llmrouter notifications"},
        )
        lost = asyncio.Event()

        def on_lost(_: object) -> None:
            self._tell(live=False)
            lost.set()

        connection.add_termination_listener(on_lost)
        try:
            for channel in self._listeners:
                await connection.add_listener(channel, self._heard)
            self._tell(live=True)
            self._on_live()
            first.set()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), PING_INTERVAL_S)
                    return
                await connection.execute("select 1")
        finally:
            self._tell(live=False)
            connection.terminate()

    def _heard(self, _connection: object, _pid: int, channel: str, payload: str) -> None:
        self._listeners[channel](payload)

    def _tell(self, *, live: bool) -> None:
        self.is_live = live
        telemetry.NOTIFICATIONS_LIVE.set(int(live))
