"""Makes past decisions again, from what is stored of them: with the same weights, or with others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from llmrouter_server import errors
from llmrouter_server.catalog.past import PastSnapshots
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.routing.record import EPOCH, choices_of, record_from_row
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.runtime.command import CommandError
from llmrouter_server.runtime.database import Database, DatabaseUnusableError
from llmrouter_server.runtime.fields import NIL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from uuid import UUID

    from llmrouter_server.routing.record import DecisionRecord
    from llmrouter_server.routing.scoring import Scored, Weights
    from llmrouter_server.routing.selection import Decision

PAGE = 500
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What comes of reading and making again a row that somebody else has written."""


class DiffersError(Exception):
    """A decision does not come out as it was answered."""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that would have another primary."""

    decision_id: UUID
    before: Scored
    after: Scored


@dataclass(slots=True)
class Replay:
    """What came of it. Deltas are sums over the changed decisions, new primary less old one."""

    replayed: int = 0
    """Decisions that were made again."""
    differing: list[UUID] = field(default_factory=list)
    """Decisions that do not come out as they were answered: there must be none."""
    without_snapshot: int = 0
    """Decisions whose catalogue snapshot is gone."""
    changed: int = 0
    cost_usd: float = 0.0
    latency_ms: int = 0
    quality_rating: float = 0.0

    def add(self, change: Change) -> None:
        """Count a decision that other weights would change."""
        self.changed += 1
        self.cost_usd += change.after.cost_usd - change.before.cost_usd
        self.latency_ms += change.after.latency_ms - change.before.latency_ms
        self.quality_rating += change.after.model.quality_rating - change.before.model.quality_rating


async def replay_stored(
    database_url: str, *, seconds: int, weights: Weights | None, changed: Callable[[Change], None]
) -> Replay:
    """Replay the decisions of the last so many seconds. Raises CommandError when the database cannot be used."""
    database = Database(database_url, min_size=1, max_size=1)
    try:
        await database.start()
        now = datetime.now(UTC)
        since = now - timedelta(seconds=seconds)
        replayer = Replayer(RoutingStore(database), CatalogStore(database))
        return await replayer.replay(since=since, before=now, weights=weights, changed=changed)
    except DatabaseUnusableError as error:
        raise CommandError(str(error)) from None
    except errors.DomainError as error:
        raise CommandError("the database cannot be reached") from error
    finally:
        await database.stop()


class Replayer:
    """Reads decisions page by page, in the order of time."""

    def __init__(self, store: RoutingStore, catalog: CatalogStore) -> None:
        self._store, self._snapshots = store, PastSnapshots(catalog)

    async def replay(
        self,
        *,
        since: datetime,
        before: datetime,
        weights: Weights | None = None,
        changed: Callable[[Change], None] = lambda _: None,
    ) -> Replay:
        """Make the decisions of a period again and compare. With `weights`, also make them with these."""
        replay = Replay()
        async for row in self._rows(since, before):
            try:
                change = await self._again(row, weights)
            except errors.DomainError as error:
                if error.reason != "RESOURCE_NOT_FOUND":
                    raise
                replay.without_snapshot += 1
                continue
            except (*UNREADABLE, DiffersError):
                replay.differing.append(row["id"])
            else:
                if change is not None:
                    replay.add(change)
                    changed(change)
            replay.replayed += 1
        return replay

    async def _again(self, row: Mapping[str, Any], weights: Weights | None) -> Change | None:
        """Make one again and return what the weights would change; DiffersError."""
        record = record_from_row(row)
        snapshot = await self._snapshots.get(record.snapshot_number)
        again = record.facts.decide(snapshot.models)
        if not _is_same(record, again):
            raise DiffersError
        if weights is None:
            return None
        other = replace(record.facts, weights=weights).decide(snapshot.models)
        change = Change(record.id, again.ranked[0], other.ranked[0])
        return change if change.before.model.model_id != change.after.model.model_id else None

    async def _rows(self, since: datetime, before: datetime) -> AsyncIterator[Mapping[str, Any]]:
        after: tuple[datetime, UUID] = (max(since, EPOCH), NIL)
        while page := await self._store.list_decisions(after, before, PAGE):
            for row in page:
                yield row
            after = (page[-1]["decided_at"], page[-1]["id"])


def _is_same(record: DecisionRecord, again: Decision) -> bool:
    """Compare exactly: the same floats in the same order."""
    return record.choices == choices_of(again, record.facts.fallback_count) and record.degraded == again.degraded
