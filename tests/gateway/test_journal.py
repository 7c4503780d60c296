"""What the server missed is recorded from Envoy's journal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from gateway_samples import HOLD, LASTS, NOW, Books, Gateway, ended, plan, row, running
from llmrouter_server import errors
from llmrouter_server.gateway import journal as journal_module
from llmrouter_server.gateway import journal_file
from llmrouter_server.gateway.journal import Journal, Reconciled
from llmrouter_server.gateway.journal_file import JournalFile, Place, read_line

if TYPE_CHECKING:
    from pathlib import Path

    from llmrouter_server.gateway.plan import Plan
    from llmrouter_server.runtime.database import Database

LATER = NOW + timedelta(seconds=10)
"""When every sample, which took two seconds, is old enough to be read."""
ZERO, USED = Decimal(0), Decimal("0.00235")
GARBAGE = [b"", b"{", b"null", b'"plan"', b"[1]", b"\xff\xfe\x00", b'{"plan": "-"}', b"[" * 100_000, b"9" * 10_000]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path, gateway: Gateway) -> Journal:
    return make(path, gateway)


def make(path: Path, gateway: Gateway) -> Journal:
    """Make a journal as a server has it that was started a moment ago."""
    gateway.now = max(gateway.now, LATER)
    return Journal(path, gateway.reporter, lambda: gateway.now, pause_s=0)


def line(of: Plan, *outcomes: str, **changes: Any) -> bytes:
    return json.dumps(row(of, *outcomes, **changes)).encode() + b"\n"


def append(path: Path, *pieces: bytes) -> None:
    with path.open("ab") as file:
        for piece in pieces:
            file.write(piece)


async def is_open(gateway: Gateway, *plans: Plan) -> list[bool]:
    return [(await gateway.books(made.user_id)).open > 0 for made in plans]


def test_a_line_says_what_the_access_log_says() -> None:
    made = plan()
    assert read_line(line(made, "503", "200", flags="DC,UF")) == ended(made, "503", "200", flags="DC,UF")


@pytest.mark.parametrize("absent", ["-", None])
def test_what_is_absent_may_be_a_dash_or_null_or_missing(absent: str | None) -> None:
    made = plan()
    names = ("attempts", "usage", "stream", "status", "flags", "bytes", "duration_ms")
    expected = read_line(json.dumps({"plan": made.to_dict()}).encode())
    assert expected is not None
    assert (expected.attempts, expected.status, expected.flags, expected.usage) == ((), 0, frozenset(), None)
    assert read_line(line(made, **dict.fromkeys(names, absent))) == expected


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_line_of_ours_is_none(garbage: bytes) -> None:
    assert read_line(garbage) is None


async def test_what_the_server_missed_is_recorded(journal: Journal, gateway: Gateway, path: Path) -> None:
    missed, failed, told = await gateway.begin(), await gateway.begin(), await gateway.begin()
    await gateway.reporter.report([ended(told)])
    append(path, line(missed), line(told), line(failed, "503", "429"), line(gateway.plan()))
    assert await journal.reconcile() == Reconciled(lines=4, recorded=2, unreadable=0)
    assert await gateway.books(missed.user_id) == Books(USED, ZERO, ZERO, USED, 0)
    assert await gateway.books(told.user_id) == Books(USED, ZERO, ZERO, USED, 0)
    assert await gateway.books(failed.user_id) == Books(ZERO, ZERO, ZERO, ZERO, 0)
    assert await journal.reconcile() == Reconciled()


async def test_when_the_row_and_the_line_come_at_once_the_request_counts_once(
    journal: Journal, gateway: Gateway, path: Path, database: Database
) -> None:
    other = await running(database)
    plans = [await gateway.begin() for _ in range(20)]
    append(path, *(line(made, "503", "200") for made in plans))
    for made in plans:
        other.reporter.add(ended(made, "503", "200"))
    await asyncio.gather(journal.reconcile(), other.reporter.stop())
    await other.stop()
    for made in plans:
        books = await gateway.books(made.user_id)
        assert (books.held, books.holds, books.open) == (ZERO, ZERO, 0)
        assert books.spent == books.recorded == Decimal("0.000141")
        assert len(await gateway.records(made.user_id)) == 2


async def test_a_server_that_was_restarted_goes_on_where_the_one_before_ended(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    first, second = await gateway.begin(), await gateway.begin()
    append(path, line(first))
    assert (await journal.reconcile()).lines == 1
    append(path, line(second))
    assert await make(path, gateway).reconcile() == Reconciled(lines=1, recorded=1)


async def test_a_server_that_dies_before_it_noted_how_far_it_came_reads_again(
    journal: Journal, gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await gateway.begin()
    append(path, line(made))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(JournalFile, "remember", fail)
        with pytest.raises(OSError, match="full"):
            await journal.reconcile()
    before = await gateway.books(made.user_id)
    assert await make(path, gateway).reconcile() == Reconciled(lines=1, recorded=0)
    assert await gateway.books(made.user_id) == before == Books(USED, ZERO, ZERO, USED, 0)


async def test_while_the_database_is_away_nothing_is_passed_over(
    journal: Journal, gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await gateway.begin()
    append(path, line(made))

    async def away(*_: object) -> None:
        raise errors.unavailable()

    with monkeypatch.context() as patched:
        patched.setattr(gateway.store, "find", away)
        with pytest.raises(errors.DomainError):
            await journal.reconcile()
    assert await journal.reconcile() == Reconciled(lines=1, recorded=1)


async def test_a_line_whose_row_may_still_come_is_left_for_the_next_time(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    old, young, after = await gateway.begin(), await gateway.begin(), await gateway.begin()
    append(path, line(old), line(young, duration_ms=5001), line(after))
    assert (await journal.reconcile()).lines == 1
    assert await is_open(gateway, old, young, after) == [False, True, True]
    gateway.now += timedelta(milliseconds=1)
    assert (await journal.reconcile()).lines == 2
    assert await is_open(gateway, old, young, after) == [False, False, False]


@pytest.mark.parametrize(
    "changes", [{"decided_at": LATER + timedelta(hours=1)}, {"decided_at": NOW.replace(year=9999, month=12)}]
)
async def test_a_line_from_the_future_holds_nothing_up(
    journal: Journal, gateway: Gateway, path: Path, changes: dict[str, Any]
) -> None:
    made = await gateway.begin()
    append(path, line(plan(**changes), duration_ms=86_400_000), line(made))
    assert await journal.reconcile() == Reconciled(lines=2, recorded=1)


async def test_a_line_that_is_not_written_to_its_end_is_left_for_the_next_time(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    made = await gateway.begin()
    written = line(made)
    append(path, line(plan()), written[:100])
    assert (await journal.reconcile()).lines == 1
    assert await journal.reconcile() == Reconciled()
    append(path, written[100:])
    assert await journal.reconcile() == Reconciled(lines=1, recorded=1)


async def test_garbage_is_counted_and_skipped(
    journal: Journal, gateway: Gateway, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = await gateway.begin()
    append(path, *(garbage + b"\n" for garbage in GARBAGE), line(made))
    with caplog.at_level(logging.WARNING):
        done = await journal.reconcile()
    assert done == Reconciled(lines=len(GARBAGE) + 1, recorded=1, unreadable=len(GARBAGE))
    assert "the journal had what the access log did not bring" in caplog.text


async def test_a_line_without_an_end_is_skipped_piece_by_piece(
    journal: Journal, gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "LONGEST_LINE", 4000)
    made = await gateway.begin()
    append(path, b"x" * 9000 + b"\n", line(made))
    assert await journal.reconcile() == Reconciled(lines=4, recorded=1, unreadable=3)


async def test_a_long_journal_is_read_in_pieces(
    journal: Journal, gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [await gateway.begin() for _ in range(7)]
    append(path, *map(line, plans))
    size, batches, real = len(line(plans[0])), [], gateway.reporter.report

    async def report(batch: Any) -> int:
        batches.append(len(batch))
        return await real(batch)

    monkeypatch.setattr(gateway.reporter, "report", report)
    monkeypatch.setattr(journal_file, "PIECE_LINES", 3)
    monkeypatch.setattr(journal_file, "PIECE_BYTES", size + 1)
    assert await journal.reconcile() == Reconciled(lines=7, recorded=7)
    assert batches == [2, 2, 2, 1]


async def test_without_a_journal_there_is_nothing_to_do(journal: Journal, path: Path) -> None:
    assert await journal.reconcile() == Reconciled()
    assert list(path.parent.iterdir()) == []


async def test_when_the_journal_is_rotated_the_old_one_is_read_to_its_end_first(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    first, last_of_old, first_of_new = [await gateway.begin() for _ in range(3)]
    append(path, line(first))
    await journal.reconcile()
    append(path, line(last_of_old))
    path.rename(path.with_name("journal.jsonl.1"))
    assert await make(path, gateway).reconcile() == Reconciled(lines=1, recorded=1)
    append(path, line(first_of_new))
    assert await journal.reconcile() == Reconciled(lines=1, recorded=1)
    assert await journal.reconcile() == Reconciled()


async def test_half_a_line_at_the_end_of_an_old_journal_is_given_up_when_a_new_one_has_followed(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    first, of_new = await gateway.begin(), await gateway.begin()
    append(path, line(first), b'{"plan"')
    await journal.reconcile()
    path.rename(path.with_name("journal.jsonl.1"))
    assert await journal.reconcile() == Reconciled()
    append(path, line(of_new))
    assert await journal.reconcile() == Reconciled(lines=2, recorded=1, unreadable=1)


@pytest.mark.parametrize("lines", [1, 3])
async def test_a_journal_that_was_cut_or_written_anew_is_read_from_its_beginning(
    journal: Journal, gateway: Gateway, path: Path, lines: int
) -> None:
    """Shorter than before, or longer: then it shows by how it begins."""
    append(path, line(await gateway.begin()), line(plan()))
    await journal.reconcile()
    os.truncate(path, 0)
    append(path, *[line(await gateway.begin()) for _ in range(lines)])
    assert await journal.reconcile() == Reconciled(lines=lines, recorded=lines)


async def test_a_journal_that_lost_its_end_is_read_from_its_beginning(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    first, written_after = line(await gateway.begin()), line(await gateway.begin())
    append(path, first, line(plan()))
    assert await journal.reconcile() == Reconciled(lines=2, recorded=1)
    os.truncate(path, len(first))
    append(path, written_after[:10])
    assert await journal.reconcile() == Reconciled(lines=1)
    append(path, written_after[10:])
    assert await journal.reconcile() == Reconciled(lines=1, recorded=1)


@pytest.mark.parametrize("noted", [b"", b"{}", b"[]", b'{"inode": "x"}', b"\xff"])
async def test_a_note_that_cannot_be_read_costs_only_time(
    journal: Journal, gateway: Gateway, path: Path, noted: bytes
) -> None:
    made = await gateway.begin()
    append(path, line(made))
    path.with_name("journal.jsonl.offset").write_bytes(noted)
    assert await journal.reconcile() == Reconciled(lines=1, recorded=1)


def test_the_note_is_replaced_whole_and_nothing_else_is_left(path: Path) -> None:
    append(path, b"one\n", b"two\n")
    file = JournalFile(path)
    for offset in (4, 8):
        file.remember(Place(path, offset))
        assert file.place() == Place(path, offset)
    assert sorted(each.name for each in path.parent.iterdir()) == ["journal.jsonl", "journal.jsonl.offset"]


async def test_two_rounds_at_once_are_one_after_the_other(journal: Journal, gateway: Gateway, path: Path) -> None:
    append(path, line(await gateway.begin()))
    done = await asyncio.gather(journal.reconcile(), journal.reconcile())
    assert done == [Reconciled(lines=1, recorded=1), Reconciled()]


async def test_a_running_server_reads_by_itself_and_survives_what_goes_wrong(
    journal: Journal, gateway: Gateway, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    problems = [RuntimeError("broken"), errors.unavailable(), OSError("no disk")]
    real = gateway.reporter.report

    async def report(batch: Any) -> int:
        if problems:
            raise problems.pop()
        return await real(batch)

    monkeypatch.setattr(gateway.reporter, "report", report)
    monkeypatch.setattr(journal_module, "INTERVAL_S", 0.001)
    made = await gateway.begin()
    append(path, line(made))
    await journal.start()
    async with asyncio.timeout(20):
        while await is_open(gateway, made) == [True]:
            await asyncio.sleep(0.01)
    await journal.stop()
    assert caplog.text.count("the journal could not be read") == 2


async def test_a_lost_request_that_the_journal_knows_is_recorded_as_it_was(
    journal: Journal, gateway: Gateway, path: Path
) -> None:
    """Also when it has expired meanwhile, if the journal is read first."""
    made = await gateway.begin()
    append(path, line(made))
    gateway.now = NOW + LASTS + timedelta(minutes=1)
    await journal.reconcile()
    await gateway.reporter.expire_lost(gateway.now)
    assert await gateway.records(made.user_id) == [(1, "success", None, 700, 60, 100, False)]
    assert USED < HOLD
