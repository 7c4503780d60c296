"""Records usage in batches, and tells what was recorded once it is stored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.runtime.group_commit import GroupCommit
from llmrouter_server.usage.key_verdicts import KeyVerdicts
from llmrouter_server.usage.record import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmrouter_server.usage.key_verdicts import Keys
    from llmrouter_server.usage.record import Report, UsageRecord
    from llmrouter_server.usage.store import UsageStore

log = logging.getLogger(__name__)

REFUSAL = "RESOURCE_NOT_FOUND"
"""The reason of a record that is refused for what it says; with any other one it could not be stored."""


FULL_BATCH = 64
"""Reports: two such batches side by side keep Postgres busy. In larger ones a report costs less, and waits longer."""


class UsageRecorder:
    """Takes reports and answers each when it is stored."""

    def __init__(self, store: UsageStore, *, observe: Callable[[Sequence[UsageRecord]], None], keys: Keys) -> None:
        """`observe` is called with each batch of new records after its commit; it must not block."""
        self._store, self._observe = store, observe
        self._verdicts = KeyVerdicts(keys)
        self._commits: GroupCommit[Report, Receipt] = GroupCommit(
            "usage", self._write, max_batch=FULL_BATCH, max_writing=2
        )

    async def start(self) -> None:
        """Begin to write."""
        await self._verdicts.start()
        await self._commits.start()

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        await self._commits.stop()
        await self._verdicts.stop()

    async def record(self, report: Report) -> Receipt:
        """Return when the report is stored. RESOURCE_NOT_FOUND: no such model; UNAVAILABLE: nothing was stored."""
        return await self._commits.add(report)

    async def record_all(self, reports: Sequence[Report]) -> list[Receipt | errors.DomainError]:
        """Return when all reports are stored, with one outcome for each: a receipt, or why it is refused.

        Raises UNAVAILABLE when any could not be stored; some of the others may be.
        """
        outcomes: list[Receipt | errors.DomainError] = []
        for outcome in await self._commits.add_all(reports):
            if isinstance(outcome, Receipt) or (isinstance(outcome, errors.DomainError) and outcome.reason == REFUSAL):
                outcomes.append(outcome)
            else:
                raise outcome
        return outcomes

    async def _write(self, reports: Sequence[Report]) -> Sequence[Receipt | Exception]:
        outcomes = await self._store.record(reports)
        new = [outcome.record for outcome in outcomes if isinstance(outcome, Receipt) and outcome.record is not None]
        if new:
            self._verdicts.note(new)
            try:
                self._observe(new)
            except Exception:  # what is stored is stored, whoever else cannot cope with it
                log.exception("recorded usage could not be observed")
        return outcomes
