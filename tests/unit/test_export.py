from __future__ import annotations

import asyncio
import csv
import io
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server import errors
from llmrouter_server.usage import export as export_module
from llmrouter_server.usage.export import (
    CHUNK_BYTES,
    HEADER,
    INCOMPLETE,
    PAGE_ROWS,
    READING_AT_ONCE,
    Line,
    export,
    safe,
)
from llmrouter_server.usage.record import StoredRecord
from turns import in_one_go

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD = StoredRecord(
    usage_id=uuid.UUID(int=1),
    request_id="request-1",
    occurred_at=datetime(2026, 3, 15, 12, 0, 0, 250000, tzinfo=UTC),
    provider_id=uuid.UUID(int=2),
    provider_name="OpenAI",
    model_id=uuid.UUID(int=3),
    model_name="gpt-4o",
    power_level="BALANCED",
    payer="PLATFORM",
    input_tokens=1000,
    output_tokens=100,
    cost_usd=Decimal("0.0000001000"),
    latency_ms=200,
    status="success",
    failure=None,
    error_message=None,
    decision_id=None,
    cached_tokens=0,
    reasoning_tokens=0,
    is_estimated=False,
)
Place = tuple[datetime, uuid.UUID]


class Pages:
    """Hands out records page by page, and may break before one of them."""

    def __init__(self, records: Sequence[StoredRecord], *, breaks_at: int | None = None) -> None:
        self.records, self.breaks_at, self.asked = records, breaks_at, list[Place | None]()

    async def read(self, before: Place | None) -> Sequence[StoredRecord]:
        self.asked.append(before)
        if len(self.asked) - 1 == self.breaks_at:
            raise errors.unavailable()
        places = [(record.occurred_at, record.usage_id) for record in self.records]
        start = 0 if before is None else places.index(before) + 1
        return self.records[start : start + PAGE_ROWS]


def many(count: int) -> list[StoredRecord]:
    return [
        replace(RECORD, usage_id=uuid.UUID(int=count - n), occurred_at=RECORD.occurred_at - timedelta(seconds=n))
        for n in range(count)
    ]


async def exported(pages: Pages) -> list[bytes]:
    return [chunk async for chunk in export(pages.read, asyncio.Lock())]


def rows_of(chunks: Sequence[bytes]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(chunks).decode(), newline="")))


async def test_a_record_is_a_row_in_the_order_of_the_header() -> None:
    failed = replace(
        RECORD,
        latency_ms=None,
        status="error",
        failure="TIMEOUT",
        error_message='no "answer",\r\nat all; ü',
        decision_id=uuid.UUID(int=4),
        cached_tokens=800,
        reasoning_tokens=60,
        is_estimated=True,
    )
    [chunk] = await exported(Pages([RECORD, failed]))
    assert chunk.decode().splitlines()[0] == ",".join(HEADER)
    assert chunk.endswith(b"\r\n")
    header, first, second = rows_of([chunk])
    assert dict(zip(header, first, strict=True)) == {
        "occurred_at": "2026-03-15T12:00:00.250000+00:00",
        "usage_id": str(RECORD.usage_id),
        "request_id": "request-1",
        "provider_id": str(RECORD.provider_id),
        "provider_name": "OpenAI",
        "model_id": str(RECORD.model_id),
        "model_name": "gpt-4o",
        "power_level": "BALANCED",
        "payer": "PLATFORM",
        "input_tokens": "1000",
        "output_tokens": "100",
        "cost_usd": "0.0000001000",
        "latency_ms": "200",
        "status": "success",
        "failure": "",
        "error_message": "",
        "decision_id": "",
        "cached_tokens": "0",
        "reasoning_tokens": "0",
        "is_estimated": "false",
    }
    assert second[HEADER.index("error_message")] == failed.error_message
    assert second[HEADER.index("latency_ms")] == ""
    assert second[HEADER.index("failure")] == "TIMEOUT"
    assert second[HEADER.index("decision_id")] == str(failed.decision_id)
    assert second[-3:] == ["800", "60", "true"]


async def test_without_any_record_there_is_still_a_header() -> None:
    assert rows_of(await exported(Pages([]))) == [list(HEADER)]


@pytest.mark.parametrize("count", [PAGE_ROWS - 1, PAGE_ROWS, 2 * PAGE_ROWS + 1])
async def test_pages_follow_each_other_and_chunks_stay_small(count: int) -> None:
    records = many(count)
    pages = Pages(records)
    chunks = await exported(pages)
    _, *rows = rows_of(chunks)
    assert [row[1] for row in rows] == [str(record.usage_id) for record in records]
    assert len(pages.asked) == count // PAGE_ROWS + 1
    assert all(CHUNK_BYTES <= len(chunk) < CHUNK_BYTES + 1000 for chunk in chunks[:-1])
    assert len(chunks) > 2


async def test_only_as_much_is_read_as_is_taken() -> None:
    pages = Pages(many(3 * PAGE_ROWS))
    chunks = export(pages.read, asyncio.Lock())
    await anext(chunks)
    assert len(pages.asked) == 1
    await chunks.aclose()


async def test_many_exports_at_once_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    writing, records = asyncio.Lock(), many(200)

    async def whole() -> list[bytes]:
        return [chunk async for chunk in export(Pages(records).read, writing)]

    async with in_one_go() as rows:
        monkeypatch.setattr(export_module, "row_of", rows.counted(export_module.row_of))
        exports = await asyncio.gather(*(whole() for _ in range(20)))
    assert rows.all == 20 * 200
    assert rows.most < 100
    assert all(len(rows_of(chunks)) == 201 for chunks in exports)


async def test_a_few_read_at_once_and_each_for_another_user() -> None:
    line, reading, done = Line(), list[int](), list[int]()

    async def read(user: int) -> None:
        async with line.reading(uuid.UUID(int=user)):
            reading.append(user)
            assert len(reading) == len(set(reading)) <= READING_AT_ONCE
            for _ in range(5):
                await asyncio.sleep(0)
            reading.remove(user)
            done.append(user)

    await asyncio.gather(*(read(user) for user in (*[1] * 20, *range(2, 12))))
    assert sorted(done) == [*[1] * 20, *range(2, 12)]
    assert done.index(11) < done.index(1, done.index(1) + 4)  # who asks for many waits for the others, not they for it


async def test_who_gives_up_waiting_keeps_nobody_from_reading() -> None:
    line = Line()
    async with line.reading(uuid.UUID(int=1)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), line.reading(uuid.UUID(int=1)):
                pass
    async with asyncio.timeout(10), line.reading(uuid.UUID(int=1)):
        pass


async def test_an_export_that_breaks_off_says_so_in_its_last_row() -> None:
    *rows, last = rows_of(await exported(Pages(many(2 * PAGE_ROWS), breaks_at=1)))
    assert len(rows) == PAGE_ROWS + 1
    assert tuple(last) == INCOMPLETE
    assert len(last) == len(HEADER)


async def test_an_export_that_cannot_begin_is_an_error() -> None:
    with pytest.raises(errors.DomainError, match="unavailable"):
        await exported(Pages([], breaks_at=0))


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        "  =1",
        "\N{NO-BREAK SPACE}=1",
        "\N{ZERO WIDTH SPACE}=1",
        "\N{ZERO WIDTH NO-BREAK SPACE}=1",
        "\x01=1",
        "\N{IDEOGRAPHIC SPACE}\N{FULLWIDTH EQUALS SIGN}1",
        "\N{FULLWIDTH PLUS SIGN}1",
        "\N{FULLWIDTH HYPHEN-MINUS}1",
        "\N{FULLWIDTH COMMERCIAL AT}SUM",
        "\N{SMALL EQUALS SIGN}1",
        "\N{MINUS SIGN}1",
    ],
)
async def test_what_a_spreadsheet_would_take_for_a_formula_has_an_apostrophe_before_it(text: str) -> None:
    everywhere = replace(RECORD, request_id=text, provider_name=text, model_name=text, error_message=text)
    _, row = rows_of(await exported(Pages([everywhere])))
    cells = dict(zip(HEADER, row, strict=True))
    for name in ("request_id", "provider_name", "model_name", "error_message"):
        assert cells[name] == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "gpt-4o", "1-2", "'=1", "#1", "  x", "ünïcode"])
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert safe(text) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
async def test_any_text_comes_back_and_none_begins_like_a_formula(text: str) -> None:
    _, row = rows_of(await exported(Pages([replace(RECORD, error_message=text)])))
    cell = row[HEADER.index("error_message")]
    assert cell in {text, f"'{text}"}
    assert not cell.strip().startswith(("=", "+", "-", "@"))
    assert not cell.startswith(("\t", "\r", "\n"))
