"""Every committed state of the catalogue is kept whole under its number, and no other."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from catalog_things import ADMIN, new_model, new_provider
from databases import started
from llmrouter_server.catalog.model import Model, ModelChanges
from llmrouter_server.catalog.provider import Provider, ProviderChanges
from llmrouter_server.catalog.snapshot import CatalogModel, CatalogRule, PowerLevel, Snapshot
from llmrouter_server.catalog.store import PRUNED_AT_ONCE, CatalogStore
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SET_PRIORITY = "update llm_providers set priority = $2 where id = $1"


@pytest.fixture(scope="module")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    database = await started(Database(await migrated_database(), min_size=2, max_size=20))
    yield database
    await database.stop()


@pytest.fixture
async def fresh(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    """A database for one test, with the initial catalogue and its one snapshot."""
    database = await started(Database(await migrated_database(), min_size=1, max_size=5))
    await CatalogStore(database).prune_snapshots(datetime.now(UTC) + timedelta(days=1))  # those of older schemas
    yield database
    await database.stop()


@pytest.fixture
def catalog(database: Database) -> CatalogStore:
    return CatalogStore(database)


@pytest.fixture
async def provider(catalog: CatalogStore) -> Provider:
    return await new_provider(catalog)


@pytest.fixture
async def model(catalog: CatalogStore, provider: Provider) -> Model:
    return await new_model(catalog, provider)


async def tables(database: Database) -> tuple[CatalogModel, ...]:
    """Return the catalogue as the tables have it now."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select m.id as model_id, m.provider_id, m.model_name, m.display_name, p.name as provider_name,"
            " p.api_endpoint, m.power_level, m.input_cost_per_1m, m.output_cost_per_1m, m.avg_latency_ms,"
            " m.quality_score as quality_rating, m.max_context_tokens, m.capabilities, p.priority, p.requires_byok,"
            " m.is_enabled as model_enabled, p.is_enabled as provider_enabled, p.provider_type"
            " from llm_models m join llm_providers p on p.id = m.provider_id order by m.id"
        )
    return tuple(
        CatalogModel(
            **{
                **row,
                "power_level": PowerLevel[row["power_level"]],
                "capabilities": frozenset(row["capabilities"]),
                "input_cost_per_1m": float(row["input_cost_per_1m"]),
                "output_cost_per_1m": float(row["output_cost_per_1m"]),
                "quality_rating": float(row["quality_rating"]),
            }
        )
        for row in rows
    )


async def numbers(database: Database) -> list[int]:
    async with database.connection() as connection:
        rows = await connection.fetch("select number from llm_catalog_snapshots order by number")
    return [row["number"] for row in rows]


def of(snapshot: Snapshot, model: Model) -> CatalogModel:
    return next(each for each in snapshot.models if each.model_id == model.id)


async def test_the_newest_snapshot_is_what_the_tables_hold(catalog: CatalogStore, database: Database) -> None:
    snapshot = await catalog.load_snapshot()
    assert snapshot.models == await tables(database)
    assert len(snapshot.models) >= 21
    assert snapshot.number == await catalog.catalog_number()
    assert all(
        type(price) is float
        for each in snapshot.models
        for price in (each.input_cost_per_1m, each.output_cost_per_1m, each.quality_rating)
    )


@pytest.mark.parametrize("price", ["0", "0.0001", "0.1", "0.15", "2.19", "0.3333", "999998.9999", "999999", "1e3"])
async def test_a_price_is_the_same_float_whether_it_comes_through_json_or_as_a_decimal(
    catalog: CatalogStore, model: Model, price: str
) -> None:
    wanted = ModelChanges(input_cost_per_1m=Decimal(price), quality_score=Decimal("9.87"))
    changed = await catalog.update_model(model.id, wanted, etag="", admin_id=ADMIN)
    seen = of(await catalog.load_snapshot(), model)
    assert (seen.input_cost_per_1m, seen.quality_rating) == (float(changed.input_cost_per_1m), 9.87)


async def test_a_past_number_gives_the_catalogue_exactly_as_it_was(
    catalog: CatalogStore, database: Database, provider: Provider, model: Model
) -> None:
    async def change_model(**values: Any) -> None:
        await catalog.update_model(model.id, ModelChanges(**values), etag="", admin_id=ADMIN)

    async def change_provider(**values: Any) -> None:
        await catalog.update_provider(provider.id, ProviderChanges(**values), etag="", admin_id=ADMIN)

    async def change_rules(sql: str) -> None:
        async with database.connection() as connection:
            await connection.execute(sql)

    night = CatalogRule(uuid.uuid4(), "night", "now.getHours() < 6", PowerLevel.ECO)
    cheap = dataclasses.replace(night, strategy="cost_optimized")
    insert_rule = f"""
    insert into llm_routing_rules (id, rule_name, strategy, config)
    values ('{night.rule_id}', 'night', '', '{{"condition": "now.getHours() < 6", "power_level": "ECO"}}')"""
    number = await catalog.catalog_number()
    history = {number: Snapshot(number, await tables(database))}
    for change, rules in [
        (lambda: change_model(is_enabled=False), ()),
        (lambda: change_model(input_cost_per_1m=Decimal("1.2345")), ()),
        (lambda: change_model(model_name=f"renamed {model.id}"), ()),
        (lambda: change_provider(is_enabled=False), ()),
        (lambda: change_provider(name=f"renamed {provider.id}"), ()),
        (lambda: change_provider(priority=999), ()),
        (lambda: new_model(catalog, provider), ()),
        (lambda: change_rules(insert_rule), (night,)),
        (lambda: change_rules("update llm_routing_rules set strategy = 'cost_optimized'"), (cheap,)),
        (lambda: change_rules("update llm_routing_rules set is_active = false"), ()),
        (lambda: change_rules("delete from llm_routing_rules"), ()),
    ]:
        before = max(history)
        await change()
        after = await catalog.catalog_number()
        assert after == before + 1
        history[after] = Snapshot(after, await tables(database), rules)
    assert len({hash((each.models, each.rules)) for each in history.values()}) == 10
    for number, snapshot in history.items():
        assert await catalog.load_snapshot(number) == snapshot
    assert await catalog.load_snapshot() == history[max(history)]


@pytest.mark.parametrize("number", [0, -1, 2**63 - 1])
async def test_a_number_that_is_not_kept_is_not_found(catalog: CatalogStore, number: int) -> None:
    with pytest.raises(DomainError, match="there is no such snapshot"):
        await catalog.load_snapshot(number)


async def test_of_two_statements_in_one_transaction_only_the_last_number_is_stored(
    catalog: CatalogStore, database: Database, model: Model
) -> None:
    before = await catalog.load_snapshot()
    async with database.transaction() as connection:
        await connection.execute(SET_PRIORITY, model.provider_id, 1)
        await connection.execute("update llm_models set avg_latency_ms = 77 where id = $1", model.id)
    after = await catalog.load_snapshot()
    assert after.number == before.number + 2
    assert [number for number in await numbers(database) if number >= before.number] == [before.number, after.number]
    assert (of(after, model).priority, of(after, model).avg_latency_ms) == (1, 77)


async def test_a_change_that_is_rolled_back_stores_nothing(
    catalog: CatalogStore, database: Database, model: Model
) -> None:
    before, kept = await catalog.load_snapshot(), await numbers(database)

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute(SET_PRIORITY, model.provider_id, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await catalog.load_snapshot() == before
    assert await numbers(database) == kept
    async with database.transaction() as connection:
        await connection.execute(SET_PRIORITY, model.provider_id, 2)
    assert (await catalog.load_snapshot()).number == before.number + 1  # the number was not used up either


async def test_a_change_that_waited_for_another_stores_both(
    catalog: CatalogStore, database: Database, provider: Provider
) -> None:
    first, second = await new_model(catalog, provider), await new_model(catalog, provider)
    async with database.transaction() as connection:
        await connection.execute("update llm_models set avg_latency_ms = 1 where id = $1", first.id)
        waiting = asyncio.create_task(
            catalog.update_model(second.id, ModelChanges(avg_latency_ms=2), etag="", admin_id=ADMIN)
        )
        while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
            await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    snapshot = await catalog.load_snapshot()
    assert (of(snapshot, first).avg_latency_ms, of(snapshot, second).avg_latency_ms) == (1, 2)
    earlier = await catalog.load_snapshot(snapshot.number - 1)
    assert (of(earlier, first).avg_latency_ms, of(earlier, second).avg_latency_ms) == (1, 500)


async def test_no_snapshot_of_many_changers_at_once_misses_a_change_that_was_committed(
    catalog: CatalogStore, database: Database, provider: Provider
) -> None:
    models = [await new_model(catalog, provider) for _ in range(8)]
    start = await catalog.catalog_number()
    committed: set[tuple[uuid.UUID, int]] = set()

    async def change(model: Model) -> None:
        for latency in (1, 2, 3, 4):
            await catalog.update_model(model.id, ModelChanges(avg_latency_ms=latency), etag="", admin_id=ADMIN)
            committed.add((model.id, latency))
            known = frozenset(committed)
            seen = {each.model_id: each.avg_latency_ms for each in (await catalog.load_snapshot()).models}
            assert all(seen[model_id] >= latency for model_id, latency in known)

    await asyncio.gather(*map(change, models))
    end = await catalog.catalog_number()
    assert end == start + 8 * 4
    states = [(await catalog.load_snapshot(number)).models for number in range(start, end + 1)]
    for before, after in itertools.pairwise(states):
        (changed,) = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        old, new = changed
        latency = 0 if old.avg_latency_ms == 500 else old.avg_latency_ms
        assert new == dataclasses.replace(old, avg_latency_ms=latency + 1)
    assert states[-1] == await tables(database)


async def test_pruning_deletes_what_was_superseded_before_then_and_never_the_newest(fresh: Database) -> None:
    catalog = CatalogStore(fresh)
    first = await catalog.load_snapshot()
    provider_id = first.models[0].provider_id
    async with fresh.connection() as connection:
        for priority in (1, 2, 3):
            await connection.execute(SET_PRIORITY, provider_id, priority)
    kept = [first.number + n for n in range(4)]
    assert await numbers(fresh) == kept
    now = datetime.now(UTC)
    async with fresh.connection() as connection:
        for number, days in ((kept[0], 40), (kept[1], 30), (kept[2], 20)):
            moment = now - timedelta(days=days)
            await connection.execute(
                "update llm_catalog_snapshots set superseded_at = $2 where number = $1", number, moment
            )
    await catalog.prune_snapshots(now - timedelta(days=41))
    assert await numbers(fresh) == kept
    await catalog.prune_snapshots(now - timedelta(days=30))
    assert await numbers(fresh) == kept[1:]  # exactly then is not before then
    await catalog.prune_snapshots(now + timedelta(days=1000))
    assert await numbers(fresh) == kept[3:]
    newest = await catalog.load_snapshot()
    assert (newest.number, newest.models) == (kept[3], await tables(fresh))
    with pytest.raises(DomainError, match="there is no such snapshot"):
        await catalog.load_snapshot(first.number)


async def test_a_snapshot_from_before_the_providers_kind_was_kept_is_read_all_the_same(fresh: Database) -> None:
    catalog = CatalogStore(fresh)
    newest = await catalog.load_snapshot()
    assert {each.provider_type for each in newest.models} >= {"local", "groq", "openai"}
    async with fresh.connection() as connection:
        await connection.execute(
            "insert into llm_catalog_snapshots (number, models, superseded_at)"
            " select -1, jsonb_agg(model - 'provider_type' order by place), now()"
            " from llm_catalog_snapshots, jsonb_array_elements(models) with ordinality as m (model, place)"
        )
    past = await catalog.load_snapshot(-1)
    assert past.models == tuple(dataclasses.replace(each, provider_type="") for each in newest.models)


async def test_pruning_goes_on_until_all_are_gone(fresh: Database) -> None:
    catalog = CatalogStore(fresh)
    newest = await catalog.catalog_number()
    async with fresh.connection() as connection:
        await connection.execute(
            "insert into llm_catalog_snapshots (number, models, superseded_at)"
            " select -n, '[]', now() - interval '1 day' from generate_series(1, $1::int) as n",
            2 * PRUNED_AT_ONCE + 1,
        )
    await catalog.prune_snapshots(datetime.now(UTC))
    assert await numbers(fresh) == [newest]
