"""All SQL of the providers' health: what each replica saw, for the others."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llmrouter_server.health.window import MINUTE_S, WINDOW_MINUTES, MinuteReport, minute_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.runtime.database import Database

KEPT_MINUTES = 20
"""Longer than the window, for replicas whose clocks do not agree."""
ROWS_AT_ONCE = 50
"""How many rows are read and made reports before others have their turn: many replicas write thousands."""

# Minutes of a provider that is gone are left out, so that they cannot keep the others from being stored.
WRITE_MINUTES = """
insert into llm_provider_minutes (
    minute, replica_id, provider_id, successes, failures, consecutive_failures, last_success_at, last_failure_at,
    latencies_ms
)
select m.minute, $1, p.id, m.successes, m.failures, m.consecutive_failures, m.last_success_at, m.last_failure_at,
    m.latencies_ms
from unnest(
    $2::timestamptz[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::timestamptz[],
    $9::jsonb[]
) as m (
    minute, provider_id, successes, failures, consecutive_failures, last_success_at, last_failure_at, latencies_ms
)
inner join llm_providers p on p.id = m.provider_id
on conflict (minute, replica_id, provider_id) do update set
    successes = excluded.successes,
    failures = excluded.failures,
    consecutive_failures = excluded.consecutive_failures,
    last_success_at = excluded.last_success_at,
    last_failure_at = excluded.last_failure_at,
    latencies_ms = excluded.latencies_ms"""

# Up to a minute ahead: clocks differ a little.
READ_PEERS = """
select provider_id, minute, successes, failures, consecutive_failures, last_success_at, last_failure_at, latencies_ms
from llm_provider_minutes
where minute between $1 and $2 and replica_id <> $3"""

PRUNE = "delete from llm_provider_minutes where minute < $1"


class HealthStore:
    """Keeps what replicas tell each other of the providers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, replica_id: UUID, reports: Sequence[tuple[UUID, MinuteReport]]) -> None:
        """Store what a replica saw of providers (by id), in place of what it had stored of the same minutes."""
        if not reports:
            return
        async with self._database.connection() as connection:
            await connection.execute(
                WRITE_MINUTES,
                replica_id,
                [_moment(report.minute * MINUTE_S) for _, report in reports],
                [provider_id for provider_id, _ in reports],
                [report.successes for _, report in reports],
                [report.failures for _, report in reports],
                [report.consecutive_failures for _, report in reports],
                [_moment(report.last_success_at) for _, report in reports],
                [_moment(report.last_failure_at) for _, report in reports],
                [{str(model_id): each for model_id, each in report.latencies_ms.items()} for _, report in reports],
            )

    async def read_peers(self, replica_id: UUID, now: float) -> dict[UUID, list[MinuteReport]]:
        """Return what all others saw within the window that ends now, by provider. Seconds since the epoch."""
        current = minute_of(now)
        first, last = ((current + offset) * MINUTE_S for offset in (1 - WINDOW_MINUTES, 1))
        asked = _moment(first), _moment(last), replica_id
        reports: dict[UUID, list[MinuteReport]] = {}
        async with self._database.transaction() as connection:
            async for row in connection.cursor(READ_PEERS, *asked, prefetch=ROWS_AT_ONCE):
                reports.setdefault(row["provider_id"], []).append(_report(row))
        return reports

    async def prune(self, now: datetime) -> None:
        """Delete what is older than 20 minutes."""
        async with self._database.connection() as connection:
            await connection.execute(PRUNE, _moment((minute_of(now.timestamp()) - KEPT_MINUTES) * MINUTE_S))


def _report(row: Any) -> MinuteReport:  # noqa: ANN401 - asyncpg has no types
    succeeded, failed = row["last_success_at"], row["last_failure_at"]
    return MinuteReport(
        minute=minute_of(row["minute"].timestamp()),
        successes=row["successes"],
        failures=row["failures"],
        consecutive_failures=row["consecutive_failures"],
        last_success_at=succeeded.timestamp() if succeeded is not None else None,
        last_failure_at=failed.timestamp() if failed is not None else None,
        latencies_ms={UUID(model_id): latencies for model_id, latencies in row["latencies_ms"].items()},
    )


def _moment(at: float | None) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if at is not None else None
