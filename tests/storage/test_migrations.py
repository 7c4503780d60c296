from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg
import pytest

from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.migrations import Migration, MigrationError, load, migrate

if TYPE_CHECKING:
    from pathlib import Path

EmptyDatabase = Callable[[], Awaitable[str]]


def ignore(_line: str) -> None:
    pass


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    await connection.close()
    return {row["tablename"] for row in rows}


async def test_says_what_it_does_and_the_second_time_does_nothing(empty_database: EmptyDatabase) -> None:
    url, said = await empty_database(), []
    assert await migrate(url, say=said.append) == len(load())
    names = [f"{migration.version:04d}_{migration.name}" for migration in load()]
    assert names[:2] == ["0001_schema", "0002_seed"]
    assert [line.split(" in ")[0] for line in said] == [f"applied {name}" for name in names]
    before = await tables(url)
    said.clear()
    assert await migrate(url, say=said.append) == 0
    assert said == [f"nothing to do: the schema is at {names[-1][:4]}"]
    assert await tables(url) == before
    assert {
        "llm_providers",
        "llm_models",
        "user_provider_keys",
        "user_llm_settings",
        "llm_routing_rules",
        "llm_usage_logs",
    } <= before


async def test_two_at_once_apply_each_migration_once(empty_database: EmptyDatabase) -> None:
    url, said = await empty_database(), []
    applied = await asyncio.gather(*(migrate(url, say=said.append) for _ in range(4)))
    assert sorted(applied) == [0, 0, 0, len(load())]
    assert "another migration is running; waiting for it to end" in said


async def test_a_failing_migration_leaves_nothing_half_done(empty_database: EmptyDatabase) -> None:
    url = await empty_database()
    good = Migration(1, "good", "create table kept (n int)")
    bad = Migration(2, "bad", "create table dropped (n int); insert into kept values (1); select 1 / 0")
    with pytest.raises(MigrationError, match=r"0002_bad failed and left nothing behind: division by zero"):
        await migrate(url, say=ignore, migrations=(good, bad))
    assert await tables(url) == {"kept", "schema_migrations"}
    mended = dataclasses.replace(bad, sql="create table dropped (n int)")
    assert await migrate(url, say=ignore, migrations=(good, mended)) == 1
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("select count(*) from kept") == 0
    await connection.close()


async def test_an_edited_file_is_refused(empty_database: EmptyDatabase) -> None:
    url = await empty_database()
    first = Migration(1, "first", "create table a (n int)")
    await migrate(url, say=ignore, migrations=(first,))
    edited = dataclasses.replace(first, sql="create table a (n bigint)")
    with pytest.raises(MigrationError, match="0001_first was edited after it was applied"):
        await migrate(url, say=ignore, migrations=(edited,))


async def test_a_newer_database_is_refused(empty_database: EmptyDatabase) -> None:
    url = await empty_database()
    first, second = Migration(1, "first", "select 1"), Migration(2, "second", "select 2")
    await migrate(url, say=ignore, migrations=(first, second))
    with pytest.raises(MigrationError, match="0002_second, which this release does not know"):
        await migrate(url, say=ignore, migrations=(first,))


async def test_a_database_that_is_away_is_one_sentence() -> None:
    with pytest.raises(MigrationError, match="the database cannot be reached: "):
        await migrate("postgresql://nobody@127.0.0.1:1/nothing", say=ignore)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["0001_a.sql", "0003_b.sql"], "numbers must be"),
        (["0001_a.sql", "0001_b.sql"], "numbers must be"),
        (["1_a.sql"], "is not named"),
        (["0001_A.sql"], "is not named"),
    ],
)
def test_wrong_file_names_are_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    for name in names:
        (tmp_path / name).write_text("select 1")
    with pytest.raises(MigrationError, match=problem):
        load(tmp_path)


def test_each_file_states_its_lock_behaviour_and_bounds_its_waits() -> None:
    for migration in load():
        assert "\n-- Locks: " in migration.sql, migration.name
        assert "set local lock_timeout" in migration.sql, migration.name


async def test_is_current_only_after_all_are_applied(empty_database: EmptyDatabase) -> None:
    url = await empty_database()
    connection = await asyncpg.connect(url)
    assert not await migrations.is_current(connection)
    await migrate(url, say=ignore, migrations=load()[:1])
    assert not await migrations.is_current(connection)
    await migrate(url, say=ignore)
    assert await migrations.is_current(connection)
    await connection.close()


async def test_rules_from_before_anything_read_them_do_not_begin_to_hold(empty_database: EmptyDatabase) -> None:
    url = await empty_database()
    await migrate(url, say=ignore, migrations=load()[:15])
    connection = await asyncpg.connect(url)
    insert = "insert into llm_routing_rules (rule_name, config) values ('idea', '{\"weights\": [1]}')"
    await connection.execute(insert)
    await migrate(url, say=ignore)
    newest = "select rules from llm_catalog_snapshots order by number desc limit 1"
    assert await connection.fetchval(newest) == "[]"
    kept = await connection.fetchrow("select is_active, strategy, config from llm_routing_rules")
    assert tuple(kept) == (False, "", '{"before": {"weights": [1]}}')
    await connection.close()
