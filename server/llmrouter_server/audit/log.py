"""The audit of readings, as those see it who read keys: nothing is told of a key before its reading is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.audit.key_reads import KeyRead
    from llmrouter_server.audit.store import KeyReadStore

MAX_BATCH = 500


def count(read: KeyRead) -> None:
    """Count a reading that is committed."""
    telemetry.counter(telemetry.KEY_READS, read.purpose, read.payer).inc()


class AuditLog:
    """Writes readings in batches; one task of each process writes."""

    def __init__(self, store: KeyReadStore) -> None:
        self._store = store
        self._writer: GroupCommit[KeyRead, None] = GroupCommit("key_reads", self._write, max_batch=MAX_BATCH)

    async def start(self) -> None:
        """Begin to write."""
        await self._writer.start()

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        await self._writer.stop()

    async def record(self, read: KeyRead) -> None:
        """Return when the reading is committed. UNAVAILABLE: it is not, or nobody knows; then keep the key."""
        try:
            await self._writer.add(read)
        except errors.DomainError:
            raise
        except Exception as error:  # whatever it is, it was logged where it happened
            raise errors.unavailable() from error
        count(read)

    async def _write(self, reads: Sequence[KeyRead]) -> Sequence[Exception | None]:
        await self._store.append(reads)
        return [None] * len(reads)
