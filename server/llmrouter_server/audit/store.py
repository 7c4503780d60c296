"""All SQL of the audit of readings of keys. `changes.py` has that of admins' changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmrouter_server.audit.key_reads import ChainedRead, KeyRead, Link, hashed_after_sequence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import date
    from uuid import UUID

    from llmrouter_server.runtime.database import Database

APPEND = "select llm_key_reads_append($1)"

LIST_OF_USER = """
select r.month, r.sequence, r.read_at, r.user_id, r.provider_id, p.name as provider_name, r.key_id, r.payer,
    r.reader_id, r.purpose, r.decision_id
from llm_key_reads r
inner join llm_providers p on p.id = r.provider_id
where r.user_id = $1
    and ($2::uuid is null or r.key_id = $2)
    and ($3::date is null or (r.month, r.sequence) < ($3, $4::bigint))
order by r.month desc, r.sequence desc
limit $5"""

# Steps from month to month in the index, however many rows each has.
LIST_MONTHS = """
with recursive months as (
    select min(month) as month from llm_key_reads
    union all
    select (select min(r.month) from llm_key_reads r where r.month > m.month) from months m where m.month is not null
)
select month, coalesce(h.sequence, 0) as sequence
from (select month from months where month is not null) as m
full join llm_key_read_heads h using (month)
where $1::date is null or month = $1
order by month"""
READ_HEAD = "select sequence, hash from llm_key_read_heads where month = $1"
READ_MONTH = """
select sequence, read_at, user_id, provider_id, key_id, payer, reader_id, purpose, decision_id, hash
from llm_key_reads
where month = $1
order by sequence"""
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ListedRead:
    """A reading as its user sees it."""

    month: date
    sequence: int
    provider_name: str
    read: KeyRead


class KeyReadStore:
    """Writes and lists readings of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, reads: Sequence[KeyRead]) -> None:
        """Hang readings onto their months' chains, all or none; those of a month stay in their order."""
        async with self._database.connection() as connection:
            await connection.execute(APPEND, [reading_row(read) for read in reads])

    async def list(
        self, user_id: UUID, *, key_id: UUID | None, after: tuple[date, int] | None, limit: int
    ) -> list[ListedRead]:
        """List readings on the user's behalf, newest first, from after this month and sequence; of one key if given."""
        month, sequence = after or (None, None)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST_OF_USER, user_id, key_id, month, sequence, limit)
        return [ListedRead(row["month"], row["sequence"], row["provider_name"], _key_read(row)) for row in rows]


def reading_row(read: KeyRead) -> tuple[object, ...]:
    """Return it as Postgres' type llm_key_reading."""
    return (
        read.month,
        read.read_at,
        read.user_id,
        read.provider_id,
        read.key_id,
        read.payer,
        read.reader_id,
        read.purpose,
        read.decision_id,
        hashed_after_sequence(read),
    )


async def months(connection: Any, only: date | None) -> dict[date, int]:  # noqa: ANN401 - asyncpg has no types
    """Return the months that have rows or a head, in order, each with how many rows its head tells."""
    return {row["month"]: row["sequence"] for row in await connection.fetch(LIST_MONTHS, only)}


async def read_head(connection: Any, month: date) -> Link | None:  # noqa: ANN401 - asyncpg has no types
    """Return the month's head."""
    row = await connection.fetchrow(READ_HEAD, month)
    return Link(row["sequence"], row["hash"]) if row is not None else None


async def read_month(connection: Any, month: date) -> AsyncIterator[ChainedRead]:  # noqa: ANN401 - asyncpg has no types
    """Return the month's rows in order, a thousand at a time; inside a transaction."""
    async for row in connection.cursor(READ_MONTH, month, prefetch=ROWS_AT_ONCE):
        yield ChainedRead(month, row["sequence"], _key_read(row), row["hash"])


def _key_read(row: Any) -> KeyRead:  # noqa: ANN401 - asyncpg has no types
    return KeyRead(
        read_at=row["read_at"],
        user_id=row["user_id"],
        provider_id=row["provider_id"],
        key_id=row["key_id"],
        payer=row["payer"],
        reader_id=row["reader_id"],
        purpose=row["purpose"],
        decision_id=row["decision_id"],
    )
