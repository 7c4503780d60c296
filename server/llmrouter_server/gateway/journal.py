"""Envoy's journal of chat requests: the rows of its access log, as JSON lines in a file.

What the server missed, because it was away or had no room, is read from there. How far it was read stands in a small
file beside it: the file's inode, what it begins with, and an offset. All of it may be lost or read twice: only what is
open yet is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.gateway.journal_file import JournalFile
from llmrouter_server.gateway.reporting import Reporter
from llmrouter_server.gateway.store import GatewayRequestStore
from llmrouter_server.runtime.command import CommandError
from llmrouter_server.runtime.database import Database, DatabaseUnusableError
from llmrouter_server.usage.recorder import UsageRecorder
from llmrouter_server.usage.store import UsageStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmrouter_server.gateway.ended import Ended

log = logging.getLogger(__name__)

INTERVAL_S = 20.0
PAUSE_S = 0.02
"""Between batches: others want the database too."""
ON_ITS_WAY = timedelta(seconds=5)
"""How old a line must be: until then its row may still come through the access log."""
WRONG_CLOCK = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a round came to."""

    lines: int = 0
    """Read, including the following."""
    recorded: int = 0
    """Were open: the server had missed them."""
    unreadable: int = 0

    def __add__(self, other: Reconciled) -> Reconciled:
        return Reconciled(self.lines + other.lines, self.recorded + other.recorded, self.unreadable + other.unreadable)


class Journal:
    """Owns the one task that reads the journal, every 20 s. Lines younger than 5 s are left for the next time."""

    def __init__(
        self,
        path: Path,
        reporter: Reporter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._file, self._reporter, self._now, self._pause_s = JournalFile(path), reporter, now, pause_s
        self._one_at_a_time = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_reconciling(), name="gateway journal")

    async def stop(self) -> None:
        """End, in the middle of a round if need be."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def reconcile(self) -> Reconciled:
        """Record what is open yet, from where it was read to until its end.

        UNAVAILABLE, OSError: what was read before counts, and the next round goes on from there.
        """
        done = Reconciled()
        async with self._one_at_a_time:
            place = await asyncio.to_thread(self._file.place)
            while place is not None:
                piece = await asyncio.to_thread(self._file.read, place, self._is_ripe)
                recorded = await self._reporter.report(piece.ended)
                if piece.after != place:
                    await asyncio.to_thread(self._file.remember, piece.after)
                    await asyncio.sleep(self._pause_s)
                done += Reconciled(piece.lines, recorded, piece.unreadable)
                place = await asyncio.to_thread(self._file.next, piece)
        if done.recorded or done.unreadable:
            log.warning(
                "the journal had what the access log did not bring",
                extra={"recorded": done.recorded, "unreadable": done.unreadable},
            )
        return done

    def _is_ripe(self, ended: Ended) -> bool:
        """Tell whether its row is not on its way any more. A moment that is far ahead is a wrong clock's."""
        now = self._now()
        try:
            age = now - (ended.plan.decided_at + timedelta(milliseconds=ended.duration_ms))
        except OverflowError:
            return True
        return age >= ON_ITS_WAY or age <= -WRONG_CLOCK

    async def _keep_reconciling(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.reconcile()
            except errors.DomainError:
                pass  # the pool has logged it
            except Exception:
                log.exception("the journal could not be read")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), INTERVAL_S)


async def reconcile_file(
    database_url: str, path: Path, *, follow: bool, say: Callable[[str], None], interval_s: float = INTERVAL_S
) -> Reconciled:
    """Do the work of the command `reconcile`; with `follow`, until it is cancelled. CommandError.

    `say` is told in one line what each round recorded.
    """
    if not follow and not await asyncio.to_thread(path.exists):
        raise CommandError(f"there is no file {path}")
    database = Database(database_url, min_size=1, max_size=4)
    budget = BudgetStore(database)
    recorder = UsageRecorder(UsageStore(database), observe=lambda _: None, keys=_NoKeys())
    # It opens none, so that none is too many.
    reporter = Reporter(recorder, GatewayRequestStore(database, most_at_once=0), budget)
    journal, total = Journal(path, reporter), Reconciled()
    async with contextlib.AsyncExitStack() as stack:
        for part in (database, recorder):
            stack.push_async_callback(part.stop)
            try:
                await part.start()
            except DatabaseUnusableError as error:
                raise CommandError(str(error)) from error
        while True:
            try:
                done = await journal.reconcile()
            except errors.DomainError as error:
                if not follow:
                    raise CommandError("the database does not answer") from error
                done = Reconciled()
            except OSError as error:
                raise CommandError(f"the journal cannot be read: {error.strerror}") from error
            total += done
            if done.lines or not follow:
                say(f"{done.recorded} recorded, {done.lines} lines read, {done.unreadable} of them unreadable")
            if not follow:
                return total
            await asyncio.sleep(interval_s)


class _NoKeys:
    """Marks no keys: what was long ago says little of whether a key works now."""

    async def mark_refused(self, pairs: object, at: datetime) -> None:
        """Do nothing."""

    async def mark_working(self, pairs: object) -> None:
        """Do nothing."""
