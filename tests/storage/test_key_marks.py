from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from custody import Custody, custody
from llmrouter_server.byok.store import MARK_REFUSED, MARK_WORKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.runtime.database import Database

HOUR = timedelta(hours=1)
LATER = datetime.now(UTC) + HOUR
"""After every key of these tests was stored."""


@pytest.fixture
async def keeper(database: Database) -> AsyncIterator[Custody]:
    async with custody(database) as made:
        yield made


async def pairs(keeper: Custody, count: int) -> list[tuple[uuid.UUID, uuid.UUID]]:
    provider = await keeper.provider()
    made = [(uuid.uuid4(), provider) for _ in range(count)]
    for user, _ in made:
        await keeper.store(user, provider)
    return made


async def marks(keeper: Custody, of: list[tuple[uuid.UUID, uuid.UUID]]) -> list[datetime | None]:
    return [(await keeper.keys.list(user, after=None, limit=10))[0].refused_at for user, _ in of]


async def versions(keeper: Custody, of: list[tuple[uuid.UUID, uuid.UUID]]) -> list[str]:
    """Return what changes with every write of a row."""
    async with keeper.database.connection() as connection:
        rows = await connection.fetch(
            "select user_id, ctid::text || xmin::text as version from user_provider_keys where user_id = any($1)",
            [user for user, _ in of],
        )
    found = {row["user_id"]: row["version"] for row in rows}
    return [found[user] for user, _ in of]


async def test_refused_keys_are_marked_and_working_ones_unmarked(keeper: Custody) -> None:
    one, two, three = of = await pairs(keeper, 3)
    assert await keeper.keys.mark_refused([one, two, one], LATER) == {one[0], two[0]}
    assert await marks(keeper, of) == [LATER, LATER, None]
    assert await keeper.keys.mark_working([two, three, two]) == {two[0]}
    assert await marks(keeper, of) == [LATER, None, None]


async def test_what_is_not_refused_is_not_written_when_it_works(keeper: Custody) -> None:
    one, two = of = await pairs(keeper, 2)
    await keeper.keys.mark_refused([one], LATER)
    before = await versions(keeper, of)
    assert await keeper.keys.mark_working([two, (uuid.uuid4(), two[1])]) == set()
    assert await versions(keeper, of) == before


async def test_a_refusal_known_already_is_not_written_again(keeper: Custody) -> None:
    of = await pairs(keeper, 1)
    await keeper.keys.mark_refused(of, LATER)
    before = await versions(keeper, of)
    for known in (LATER, LATER - timedelta(minutes=1)):
        assert await keeper.keys.mark_refused(of, known) == set()
    assert await versions(keeper, of) == before
    assert await keeper.keys.mark_refused(of, LATER + HOUR) == {of[0][0]}


async def test_a_key_that_was_stored_since_it_was_refused_is_another_key(keeper: Custody) -> None:
    of = await pairs(keeper, 1)
    assert await keeper.keys.mark_refused(of, datetime.now(UTC) - HOUR) == set()
    assert await marks(keeper, of) == [None]


async def test_nothing_is_nothing(keeper: Custody) -> None:
    assert await keeper.keys.mark_refused([], LATER) == await keeper.keys.mark_working([]) == set()


async def test_a_mark_is_no_change_of_the_users(keeper: Custody) -> None:
    of = await pairs(keeper, 1)
    (before,) = await keeper.keys.list(of[0][0], after=None, limit=1)
    await keeper.keys.mark_refused(of, LATER)
    (after,) = await keeper.keys.list(of[0][0], after=None, limit=1)
    assert after.updated_at == before.updated_at


async def test_batches_in_any_order_do_not_wait_for_each_other_in_a_circle(keeper: Custody) -> None:
    of = await pairs(keeper, 40)
    backwards = of[::-1]
    for turn in range(1, 6):
        await asyncio.gather(
            keeper.keys.mark_refused(of, LATER + turn * HOUR),
            keeper.keys.mark_working(backwards),
            keeper.keys.mark_refused(backwards, LATER + turn * HOUR),
            keeper.keys.mark_working(of),
        )
    await keeper.keys.mark_working(of)
    assert await marks(keeper, of) == [None] * 40


async def test_marks_find_their_rows_by_the_index(keeper: Custody) -> None:
    of = await pairs(keeper, 2)
    async with keeper.database.transaction() as connection:
        await connection.execute("set local enable_seqscan = off")
        users, providers = [user for user, _ in of], [provider for _, provider in of]
        for statement, values in ((MARK_REFUSED, (users, providers, LATER)), (MARK_WORKING, (users, providers))):
            plan = "\n".join(row[0] for row in await connection.fetch(f"explain {statement}", *values))
            assert "user_provider_keys_user_id_provider_id_key" in plan
