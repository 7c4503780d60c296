"""Usage as CSV (RFC 4180), safe to open in a spreadsheet, a piece at a time."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import unicodedata
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.usage.record import StoredRecord

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/csv; charset=utf-8"
CHUNK_BYTES = 8192
PAGE_ROWS = 1000
READING_AT_ONCE = 4
"""How many exports of a process may read a page at the same time, each of another user."""
HEADER = (
    "occurred_at",
    "usage_id",
    "request_id",
    "provider_id",
    "provider_name",
    "model_id",
    "model_name",
    "power_level",
    "payer",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "latency_ms",
    "status",
    "failure",
    "error_message",
    "decision_id",
    "cached_tokens",
    "reasoning_tokens",
    "is_estimated",
)
INCOMPLETE = ("incomplete: the export broke off here, ask for it again", *[""] * (len(HEADER) - 1))
FORMULA = frozenset("=+-@")
CUT_OFF = frozenset("\t\r\n")
INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Categories of characters that one does not see."""


class Line:
    """Where the exports of a process wait for each other, however many there are.

    Nobody waits for a client that reads slowly: what is held is held while a page is read or a chunk is written.
    """

    def __init__(self) -> None:
        self.writing = asyncio.Lock()
        self._reading = asyncio.Semaphore(READING_AT_ONCE)
        self._of_users: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def reading(self, user_id: UUID) -> AsyncIterator[None]:
        """Wait until a page of this user's may be read."""
        own = self._of_users.setdefault(user_id, asyncio.Lock())
        async with own, self._reading:
            yield


async def export(
    read: Callable[[tuple[datetime, UUID] | None], Awaitable[Sequence[StoredRecord]]], writing: asyncio.Lock
) -> AsyncIterator[bytes]:
    """Write records as CSV in chunks of about 8 KiB, a header first; with each chunk others have their turn.

    `read` gets a page of PAGE_ROWS records, from after the last one of the page before. A failure of the first page is
    raised, since nothing has been sent by then; after that, the last row says that the export is incomplete.
    """
    page = await read(None)
    sheet = Sheet()
    sheet.write(HEADER)
    while True:
        records = iter(page)
        while await _fill(sheet, records, writing):
            yield sheet.take()
        if len(page) < PAGE_ROWS:
            break
        try:
            page = await read((page[-1].occurred_at, page[-1].usage_id))
        except Exception:
            log.exception("an export of usage is incomplete")
            sheet.write(INCOMPLETE)
            break
    if sheet.size:
        yield sheet.take()


async def _fill(sheet: Sheet, records: Iterable[StoredRecord], writing: asyncio.Lock) -> bool:
    """Write until there is a chunk, or until no record is left: then False."""
    async with writing:  # or all exports would have a chunk written in the same turn
        await asyncio.sleep(0)
        for record in records:
            sheet.write(row_of(record))
            if sheet.size >= CHUNK_BYTES:
                return True
    return False


class Sheet:
    """Rows of CSV that are not sent yet."""

    def __init__(self) -> None:
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)

    @property
    def size(self) -> int:
        """In characters, which is about its bytes."""
        return self._text.tell()

    def write(self, cells: Iterable[object]) -> None:
        """Add a row."""
        self._writer.writerow(cells)

    def take(self) -> bytes:
        """Return everything as UTF-8, and begin anew."""
        data = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return data


def row_of(record: StoredRecord) -> tuple[object, ...]:
    """Return the cells of a record, in the order of the header: numbers in plain decimals, text made safe."""
    return (
        record.occurred_at.isoformat(timespec="microseconds"),
        record.usage_id,
        safe(record.request_id),
        record.provider_id,
        safe(record.provider_name),
        record.model_id,
        safe(record.model_name),
        record.power_level,
        record.payer,
        record.input_tokens,
        record.output_tokens,
        f"{record.cost_usd:f}",
        "" if record.latency_ms is None else record.latency_ms,
        record.status,
        record.failure or "",
        safe(record.error_message or ""),
        record.decision_id or "",
        record.cached_tokens,
        record.reasoning_tokens,
        "true" if record.is_estimated else "false",
    )


def safe(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula, or for a cell of its own.

    Spreadsheets overlook what one cannot see, and take full-width signs for the plain ones.
    Source: OWASP, CSV Injection.
    """
    if text[:1].isascii() and text[:1].isalnum():
        return text
    seen = next((letter for letter in text if unicodedata.category(letter) not in INVISIBLE), "")
    is_formula = unicodedata.normalize("NFKC", seen) in FORMULA or seen == "\N{MINUS SIGN}"
    return f"'{text}" if is_formula or text[:1] in CUT_OFF else text
