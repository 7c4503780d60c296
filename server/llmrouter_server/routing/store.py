"""All SQL of routing: what it reads of users, and the decisions it made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrouter_server import errors
from llmrouter_server.byok.live_keys import KeptKey
from llmrouter_server.routing.record import moment_of, record_from_row
from llmrouter_server.routing.state import NO_KEYS, UserState
from llmrouter_server.settings.store import preferences_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from llmrouter_server.routing.record import DecisionRecord
    from llmrouter_server.runtime.database import Database

USER_STATE = """
select s.preferred_power_level, s.routing_config, s.monthly_budget_usd, s.on_budget_exceeded, s.updated_at,
    coalesce(l.spent_usd, 0) as spent_usd, k.providers, k.ids, k.ciphertexts, k.refused_at
from (select $1::uuid as id) as u
left join user_llm_settings s on s.user_id = u.id
left join llm_budget_ledger l on l.user_id = u.id and l.month = $2
cross join lateral (
    select array_agg(provider_id) as providers, array_agg(id) as ids, array_agg(encrypted_api_key) as ciphertexts,
        array_agg(refused_at) as refused_at
    from user_provider_keys where user_id = u.id and is_active
) as k"""

ENSURE_PARTITION = "select llm_decisions_ensure_partition($1)"
INSERT_DECISIONS = """
with made as materialized (
    select number, facts::jsonb, outcome::jsonb
    from unnest($6::text[], $7::text[]) with ordinality as m (facts, outcome, number)
)
insert into llm_decisions (id, decided_at, user_id, snapshot_number, facts, outcome)
select d.id, d.decided_at, d.user_id, d.snapshot_number, m.facts, m.outcome
from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::bigint[], $5::bigint[])
    as d (id, decided_at, user_id, snapshot_number, made)
inner join made as m on m.number = d.made
on conflict (id, decided_at) do nothing"""
"""Many decisions are made of the same facts, which so are sent and read once."""
FIND_DECISION = """
select id, decided_at, user_id, snapshot_number, facts, outcome from llm_decisions where id = $1 and decided_at = $2"""
LIST_DECISIONS = """
select id, decided_at, user_id, snapshot_number, facts, outcome from llm_decisions
where (decided_at, id) > ($1, $2) and decided_at < $3
order by decided_at, id
limit $4"""
OLD_PARTITIONS = """
select c.relname from pg_inherits i
inner join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'llm_decisions'::regclass and c.relname < 'llm_decisions_' || to_char($1::date, 'YYYY_MM_DD')
order by c.relname"""


class RoutingStore:
    """Reads users' states; writes and reads decisions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user_state(self, user_id: UUID, month: date) -> UserState:
        """Read what routing needs to know of a user, in one query."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(USER_STATE, user_id, month)
        providers = row["providers"] or ()
        sealed, refused = NO_KEYS, {}
        if providers:
            sealed = dict(zip(providers, map(KeptKey, row["ids"], row["ciphertexts"]), strict=True))
            refusals = zip(providers, row["refused_at"], strict=True)
            refused = {provider: at for provider, at in refusals if at is not None}
        return UserState(
            month=month,
            preferences=preferences_of(row if row["preferred_power_level"] is not None else None),
            keyed_providers=frozenset(providers),
            refused_at=refused or None,
            spent_usd=row["spent_usd"],
            sealed_keys=sealed,
        )

    async def write_decisions(self, columns: Sequence[Sequence[object]], days: Collection[date]) -> None:
        """Store decisions, given as the columns of INSERT_DECISIONS, making the partitions of these days first.

        Those that are there already, because the answer of an earlier try was lost, stay as they are.
        """
        async with self._database.transaction() as connection:
            for day in sorted(days):
                await connection.execute(ENSURE_PARTITION, day)
            await connection.execute(INSERT_DECISIONS, *columns)

    async def find_decision(self, decision_id: UUID) -> DecisionRecord:
        """Return a decision; RESOURCE_NOT_FOUND."""
        async with self._database.connection() as connection:
            # The time inside the id leads to its partition; for an id of another making there is none.
            row = await connection.fetchrow(FIND_DECISION, decision_id, moment_of(decision_id))
        if row is None:
            raise errors.not_found("decision")
        return record_from_row(row)

    async def list_decisions(
        self, after: tuple[datetime, UUID], before: datetime, limit: int
    ) -> Sequence[Mapping[str, Any]]:
        """Return decisions after one and before a moment, oldest first, as they are stored: for record_from_row."""
        async with self._database.connection() as connection:
            rows: Sequence[Mapping[str, Any]] = await connection.fetch(LIST_DECISIONS, *after, before, limit)
        return rows

    async def make_partitions(self, days: Collection[date]) -> None:
        """Make the partitions of these days."""
        for day in sorted(days):
            async with self._database.connection() as connection:
                await connection.execute(ENSURE_PARTITION, day)

    async def drop_partitions(self, before: date) -> None:
        """Drop the partitions of the days before this one."""
        async with self._database.connection() as connection:
            names = [row["relname"] for row in await connection.fetch(OLD_PARTITIONS, before)]
        for name in names:
            async with self._database.transaction() as connection:
                await connection.execute("set local lock_timeout = '2s'")
                await connection.execute(f'drop table "{name}"')  # the names are our own, from the catalogue
