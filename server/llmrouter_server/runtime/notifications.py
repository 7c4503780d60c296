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

    `on_live` is called whenever it becomes live, after LISTEN, and after a notification that could not be read:
    whatever was remembered from before must be forgotten.
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
        self._is_stopping = False
        self.is_live = False

    async def start(self) -> None:
        """Begin to listen; returns before it is live when the database is away."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._keep_listening(first), name="notifications")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await first.wait()

    async def stop(self) -> None:
        """Stop listening."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_listening(self, first: asyncio.Event) -> None:
        while not self._is_stopping:  # the driver may answer a cancellation with an error of its own
            try:
                await self._listen(first)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                pass  # whatever it is, the database watcher tells it better
            except Exception:
                log.exception("the connection for notifications failed")
            first.set()
            if not self._is_stopping:
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
                    async with asyncio.timeout(PING_INTERVAL_S):
                        await lost.wait()
                        return
                await connection.execute("select 1")
        finally:
            self._tell(live=False)
            connection.terminate()

    def _heard(self, _connection: object, _pid: int, channel: str, payload: str) -> None:
        try:
            self._listeners[channel](payload)
        except Exception:
            log.exception("a notification cannot be read; all is read again", extra={"channel": channel})
            self._on_live()

    def _tell(self, *, live: bool) -> None:
        if live != self.is_live and not self._is_stopping:
            log.warning("changes are heard of" if live else "changes are not heard of; every use looks for them")
        self.is_live = live
        telemetry.NOTIFICATIONS_LIVE.set(int(live))
