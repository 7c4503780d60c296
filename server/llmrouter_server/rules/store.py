"""All SQL of the routing rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from llmrouter_server import errors
from llmrouter_server.audit.changes import Change, differing, record_change
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.rules.rule import MOST_ACTIVE, Definition, Rule, RuleWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.rules.rule import DefinitionChanges
    from llmrouter_server.runtime.database import Database

_RULE = "r.id, r.rule_name, r.priority, r.is_active, r.strategy, r.config, r.revision, r.created_at, r.updated_at"

# In the order in which routing tries them: names by their code points, wherever the database sorts.
LIST = f"""
select {_RULE} from llm_routing_rules r
where (r.is_active or not $1)
    and ($2::bigint is null or (-r.priority, r.rule_name collate "C") > (-$2::bigint, $3::text))
order by -r.priority, r.rule_name collate "C"
limit $4"""  # noqa: S608 - a constant list of columns

GET = f"select {_RULE} from llm_routing_rules r where r.id = $1"  # noqa: S608 - a constant list of columns
LOCK = GET + " for update"

INSERT = f"""
insert into llm_routing_rules as r (rule_name, priority, is_active, strategy, config)
values ($1, $2, $3, $4, $5)
returning {_RULE}"""  # noqa: S608 - a constant list of columns

# clock_timestamp, because the wait for the lock must count.
UPDATE = f"""
update llm_routing_rules r set
    rule_name = $2, priority = $3, is_active = $4, strategy = $5, config = $6,
    revision = revision + 1, updated_at = clock_timestamp()
where r.id = $1
returning {_RULE}"""  # noqa: S608 - a constant list of columns

DELETE = "delete from llm_routing_rules where id = $1"

# Whoever activates a rule waits for whoever does so now, and counts what has come of it; readers wait for nobody.
LOCK_ALL = "lock table llm_routing_rules in share row exclusive mode"
COUNT_ACTIVE = "select count(*) from llm_routing_rules where is_active"

# Providers are never erased: what is there now stays.
MISSING_PROVIDERS = """
select wanted.id from unnest($1::uuid[]) as wanted (id)
where not exists (select from llm_providers p where p.id = wanted.id)
order by wanted.id"""


class RuleStore:
    """Reads and changes rules, and records each change of an admin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, active_only: bool, after: tuple[int, str] | None, limit: int) -> list[Rule]:
        """List by descending priority, then name, from after the rule with these two."""
        priority, name = after or (None, None)
        async with self._database.connection() as connection:
            rows = await connection.fetch(LIST, active_only, priority, name, limit)
        return [_rule(row) for row in rows]

    async def get(self, rule_id: UUID) -> Rule:
        """Return a rule; RESOURCE_NOT_FOUND."""
        async with self._database.connection() as connection:
            return _rule(await connection.fetchrow(GET, rule_id))

    async def create(self, definition: Definition, *, admin_id: UUID) -> Rule:
        """Create a rule.

        INVALID_FIELD when it has no effect, a provider is unknown, or 200 are active already; ALREADY_EXISTS: the name
        is.
        """
        try:
            async with self._database.transaction() as connection:
                await _check(connection, definition)
                if definition.is_active:
                    await _have_room(connection)
                rule = _rule(await connection.fetchrow(INSERT, *_values(definition)))
                change = Change(
                    admin_id=admin_id,
                    resource="routing_rule",
                    resource_id=rule.id,
                    action="create",
                    after=definition.facts(),
                )
                await record_change(connection, change)
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("rule", "rule_name", definition.rule_name) from None
        return rule

    async def update(self, rule_id: UUID, changes: DefinitionChanges, *, etag: str, admin_id: UUID) -> Rule:
        """Change the fields that are given; when all have these values already, do nothing.

        Errors: those of `create`; RESOURCE_NOT_FOUND; ETAG_MISMATCH unless `etag` is empty or the present one.
        """
        wanted = None
        try:
            async with self._database.transaction() as connection:
                rule = await _lock(connection, rule_id, etag)
                wanted = changes.applied_to(rule.definition)
                before, after = differing(rule.definition.facts(), wanted.facts())
                if after:
                    await _check(connection, wanted)
                    if wanted.is_active and not rule.definition.is_active:
                        await _have_room(connection)
                    rule = _rule(await connection.fetchrow(UPDATE, rule_id, *_values(wanted)))
                    change = Change(
                        admin_id=admin_id,
                        resource="routing_rule",
                        resource_id=rule_id,
                        action="update",
                        before=before,
                        after=after,
                    )
                    await record_change(connection, change)
        except asyncpg.UniqueViolationError:
            raise errors.already_exists("rule", "rule_name", wanted.rule_name if wanted else "") from None
        return rule

    async def delete(self, rule_id: UUID, *, etag: str, admin_id: UUID) -> Rule:
        """Erase a rule and return it. RESOURCE_NOT_FOUND; ETAG_MISMATCH, as for `update`."""
        async with self._database.transaction() as connection:
            rule = await _lock(connection, rule_id, etag)
            await connection.execute(DELETE, rule_id)
            change = Change(
                admin_id=admin_id,
                resource="routing_rule",
                resource_id=rule_id,
                action="delete",
                before=rule.definition.facts(),
            )
            await record_change(connection, change)
        return rule


async def _lock(connection: Any, rule_id: UUID, etag: str) -> Rule:  # noqa: ANN401 - asyncpg has no types
    rule = _rule(await connection.fetchrow(LOCK, rule_id))
    if etag and etag != rule.etag:
        raise errors.etag_mismatch("rule")
    return rule


async def _check(connection: Any, definition: Definition) -> None:  # noqa: ANN401 - asyncpg has no types
    if not definition.has_effect:
        raise errors.invalid(
            ("power_level", "a rule needs an effect: at least one of power_level, strategy, weights and provider_ids")
        )
    missing = await connection.fetch(MISSING_PROVIDERS, definition.provider_ids) if definition.provider_ids else ()
    if missing:
        raise errors.invalid(*(("provider_ids", f"there is no provider {row['id']}") for row in missing))


async def _have_room(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    await connection.execute(LOCK_ALL)
    if await connection.fetchval(COUNT_ACTIVE) >= MOST_ACTIVE:
        raise errors.invalid(("is_active", f"at most {MOST_ACTIVE} rules may be active: deactivate or erase one first"))


def _values(definition: Definition) -> Sequence[object]:
    return (
        definition.rule_name,
        definition.priority,
        definition.is_active,
        definition.strategy or "",
        definition.config(),
    )


def _rule(row: Any) -> Rule:  # noqa: ANN401 - asyncpg has no types
    if row is None:
        raise errors.not_found("rule")
    config = row["config"]
    level, weights = config.get("power_level"), config.get("weights")
    definition = Definition(
        rule_name=row["rule_name"],
        priority=row["priority"],
        is_active=row["is_active"],
        condition=config.get("condition", ""),
        power_level=PowerLevel[level] if level else None,
        strategy=row["strategy"] or None,
        weights=RuleWeights(**weights) if weights else None,
        provider_ids=tuple(map(UUID, config.get("provider_ids", ()))),
    )
    return Rule(row["id"], definition, row["revision"], row["created_at"], row["updated_at"])
