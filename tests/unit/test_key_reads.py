from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.audit.key_reads import ChainCheck, ChainedRead, KeyRead, Link, canonical_bytes, extend

if TYPE_CHECKING:
    from collections.abc import Sequence

NOVEMBER = date(2026, 11, 1)
READ = KeyRead(
    read_at=datetime(2026, 11, 24, 10, 30, 0, 5, UTC),
    user_id=uuid.UUID(int=1),
    provider_id=uuid.UUID(int=2),
    key_id=None,
    payer="PLATFORM",
    reader_id=uuid.UUID(int=4),
    purpose="credential",
)


def reads() -> st.SearchStrategy[KeyRead]:
    return st.builds(
        KeyRead,
        read_at=st.datetimes(datetime(2026, 11, 1), datetime(2026, 11, 30), timezones=st.just(UTC)),  # noqa: DTZ001
        user_id=st.uuids(),
        provider_id=st.uuids(),
        key_id=st.none() | st.uuids(),
        payer=st.sampled_from(("USER_KEY", "PLATFORM")),
        reader_id=st.uuids(),
        purpose=st.sampled_from(("credential", "verify", "gateway")),
        decision_id=st.none() | st.uuids(),
    )


chains = st.lists(reads(), min_size=3, max_size=8).map(lambda many: extend(NOVEMBER, Link.before_first(NOVEMBER), many))


def problems(rows: Sequence[ChainedRead], head: Link | None) -> list[str]:
    check = ChainCheck(NOVEMBER)
    found = [problem for row in rows for problem in check.row(row)]
    return [*found, *check.end(head)]


def head_of(rows: Sequence[ChainedRead]) -> Link:
    return Link(rows[-1].sequence, rows[-1].hash)


def test_a_row_is_these_bytes() -> None:
    assert canonical_bytes(NOVEMBER, 7, READ) == (
        b'["2026-11",7,"2026-11-24T10:30:00.000005+00:00","00000000-0000-0000-0000-000000000001",'
        b'"00000000-0000-0000-0000-000000000002",null,"PLATFORM","00000000-0000-0000-0000-000000000004","credential",'
        b"null]"
    )


def test_a_month_hangs_on_its_own_name() -> None:
    (row,) = extend(NOVEMBER, Link.before_first(NOVEMBER), [READ])
    start = hashlib.sha256(b"2026-11").digest()
    assert (row.sequence, row.hash) == (1, hashlib.sha256(start + canonical_bytes(NOVEMBER, 1, READ)).digest())


def test_the_month_and_the_bytes_are_those_of_utc() -> None:
    moved = replace(READ, read_at=datetime(2026, 12, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))))
    same = replace(READ, read_at=datetime(2026, 11, 30, 23, 0, tzinfo=UTC))
    assert moved.month == same.month == NOVEMBER
    assert canonical_bytes(NOVEMBER, 1, moved) == canonical_bytes(NOVEMBER, 1, same)


@given(chains)
def test_an_untouched_chain_has_no_problem(rows: list[ChainedRead]) -> None:
    assert problems(rows, head_of(rows)) == []


@given(st.lists(reads(), max_size=9), st.integers(0, 9))
def test_a_chain_is_the_same_however_it_is_written(many: list[KeyRead], cut: int) -> None:
    start = Link.before_first(NOVEMBER)
    first = extend(NOVEMBER, start, many[:cut])
    second = extend(NOVEMBER, head_of(first) if first else start, many[cut:])
    assert [*first, *second] == extend(NOVEMBER, start, many)


@given(chains, st.data())
def test_any_edit_shows(rows: list[ChainedRead], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(reads().filter(lambda read: read != rows[place].read))
    edited = [*rows[:place], replace(rows[place], read=other), *rows[place + 1 :]]
    found = problems(edited, head_of(rows))
    assert len(found) == 1
    assert f"row {place + 1} was edited" in found[0]


@given(chains, st.data())
def test_an_edit_with_a_new_hash_of_its_own_shows(rows: list[ChainedRead], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(reads().filter(lambda read: read != rows[place].read))
    before = Link(place, rows[place - 1].hash) if place else Link.before_first(NOVEMBER)
    forged = [*rows[:place], *extend(NOVEMBER, before, [other]), *rows[place + 1 :]]
    (problem,) = problems(forged, head_of(rows))
    assert f"or the hash of row {place + 1}" in problem or f"or row {place + 1}: their hashes differ" in problem


@given(chains, st.data())
def test_any_removal_shows(rows: list[ChainedRead], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first, len(rows) - 1))
    (problem,) = problems(rows[:first] + rows[last + 1 :], head_of(rows))
    which = f"row {first + 1} is" if first == last else f"rows {first + 1} to {last + 1} are"
    assert f"2026-11: {which} missing" in problem


@given(chains, st.data())
def test_a_removal_with_new_numbers_shows(rows: list[ChainedRead], data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, len(rows) - 2))
    renumbered = [replace(row, sequence=row.sequence - 1) for row in rows[gone + 1 :]]
    assert problems(rows[:gone] + renumbered, head_of(rows))


@given(chains, st.permutations(range(3)))
def test_another_order_shows(rows: list[ChainedRead], order: list[int]) -> None:
    shuffled = [replace(rows[place], sequence=number + 1) for number, place in enumerate(order)]
    assert bool(problems([*shuffled, *rows[3:]], head_of(rows))) == (order != [0, 1, 2])


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (None, "2026-11: the head is missing, so whether rows after 2 were removed is not known"),
        (Link(3, b"x"), "2026-11: row 3 is missing at the end"),
        (Link(9, b"x"), "2026-11: rows 3 to 9 are missing at the end"),
        (Link(1, b"x"), "2026-11: the head was altered: it names row 1, and the last is 2"),
        (Link(2, b"x"), "2026-11: the head was altered, or row 2: their hashes differ"),
    ],
)
def test_a_head_that_does_not_fit_shows(head: Link | None, problem: str) -> None:
    assert problems(extend(NOVEMBER, Link.before_first(NOVEMBER), [READ, READ]), head) == [problem]


def test_a_row_of_another_month_shows() -> None:
    october = replace(READ, read_at=datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC))
    rows = extend(NOVEMBER, Link.before_first(NOVEMBER), [READ, october])
    assert problems(rows, head_of(rows)) == ["2026-11: row 2 was read in 2026-10: it is in the wrong month"]


def test_a_row_that_stands_twice_shows() -> None:
    rows = extend(NOVEMBER, Link.before_first(NOVEMBER), [READ, READ])
    assert problems([*rows, rows[1]], head_of(rows)) == ["2026-11: row 2 is there more than once"]


def test_a_month_that_never_was_has_no_problem() -> None:
    assert problems([], None) == []


def test_a_month_without_any_row_is_missing_all_of_them() -> None:
    assert problems([], Link(5, b"x")) == ["2026-11: rows 1 to 5 are missing at the end"]
