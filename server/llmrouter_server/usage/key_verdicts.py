"""Tells which users' own keys their providers refuse, and which work again, after usage is recorded."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llmrouter_server import errors
from llmrouter_server.usage.record import USER_KEY, Failure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.usage.record import UsageRecord

log = logging.getLogger(__name__)

KeyOwner: TypeAlias = "tuple[UUID, UUID]"
"""A user and a provider."""


class Keys(Protocol):
    """Where it is kept whether a user's key works."""

    async def mark_refused(self, pairs: Collection[KeyOwner], at: datetime) -> object:
        """Note that these keys, if they have not changed since, were refused then."""

    async def mark_working(self, pairs: Collection[KeyOwner]) -> object:
        """Note that these keys work."""


class KeyVerdicts:
    """Owns the one task that tells. What comes while it is at it is put together: the newest word on a key counts.

    Nobody waits for it, and what cannot be told is dropped: the next attempt with the key will say the same.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._pending: dict[KeyOwner, UsageRecord] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.create_task(self._keep_telling(), name="key verdicts")

    async def stop(self) -> None:
        """Tell what is pending, then stop."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def note(self, records: Iterable[UsageRecord]) -> None:
        """Take what these records say of users' own keys."""
        for record in records:
            report = record.report
            if record.payer == USER_KEY and (report.succeeded or report.failure is Failure.UNAUTHORIZED):
                owner = report.user_id, record.provider_id
                before = self._pending.get(owner)
                if before is None or before.report.occurred_at <= report.occurred_at:
                    self._pending[owner] = record
                    self._wake.set()

    async def _keep_telling(self) -> None:
        while self._pending or not self._stopping:
            await self._wake.wait()
            pending, self._pending = self._pending, {}
            if not self._stopping:
                self._wake.clear()
            try:
                await self._tell(pending)
            except errors.DomainError as error:
                log.warning("keys could not be marked", extra={"keys": len(pending), "reason": error.reason})
            except Exception:
                log.exception("keys could not be marked")

    async def _tell(self, pending: dict[KeyOwner, UsageRecord]) -> None:
        refused: dict[datetime, list[KeyOwner]] = {}
        working: list[KeyOwner] = []
        for owner, record in pending.items():
            if record.report.succeeded:
                working.append(owner)
            else:
                refused.setdefault(record.report.occurred_at, []).append(owner)
        for moment, owners in sorted(refused.items()):
            await self._keys.mark_refused(owners, moment)
        if working:
            await self._keys.mark_working(working)
