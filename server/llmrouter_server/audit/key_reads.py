"""Readings of keys, and the chain by which an edit, a removal or a gap among them shows.

Each UTC month is a chain of its own. A row's hash covers the row and the hash of the row before it; the first row's
covers the month's name in that place. Whoever can write to the database could still write a whole chain anew: a hash
that was noted elsewhere tells.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime
    from uuid import UUID

Payer: TypeAlias = Literal["USER_KEY", "PLATFORM"]
Purpose: TypeAlias = Literal["credential", "verify", "gateway"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRead:
    """One decryption of a key: who, for whom, which key, why."""

    read_at: datetime
    """Aware, to the microsecond."""
    user_id: UUID
    """On whose behalf."""
    provider_id: UUID
    key_id: UUID | None
    """None for the platform's key."""
    payer: Payer
    """Whose key it was."""
    reader_id: UUID
    """The caller: the `sub` of a service's token, or the user's own."""
    purpose: Purpose
    decision_id: UUID | None = None

    @property
    def month(self) -> date:
        """The UTC month it belongs to, by its first day."""
        return self.read_at.astimezone(UTC).date().replace(day=1)


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain stands: its last row's sequence and hash."""

    sequence: int
    hash: bytes

    @classmethod
    def before_first(cls, month: date) -> Link:
        """Return where the month's chain hangs."""
        return cls(0, hashlib.sha256(month_name(month).encode()).digest())


@dataclass(frozen=True, slots=True)
class ChainedRead:
    """A reading in its place in a chain."""

    month: date
    sequence: int
    """From 1, without gaps."""
    read: KeyRead
    hash: bytes


def month_name(month: date) -> str:
    """Return a month's name, for instance 2026-01."""
    return f"{month:%Y-%m}"


def canonical_bytes(month: date, sequence: int, read: KeyRead) -> bytes:
    """Return the bytes of a row that its hash covers: the same for what is written and what is read back."""
    return f'["{month_name(month)}",{sequence}{hashed_after_sequence(read)}'.encode()


def hashed_after_sequence(read: KeyRead) -> str:
    """Return the part of a row that its hash covers and that is known before its place in the chain is."""
    values = (
        read.read_at.astimezone(UTC).isoformat(timespec="microseconds"),
        str(read.user_id),
        str(read.provider_id),
        str(read.key_id) if read.key_id is not None else None,
        read.payer,
        str(read.reader_id),
        read.purpose,
        str(read.decision_id) if read.decision_id is not None else None,
    )
    return "," + json.dumps(values, separators=(",", ":"))[1:]


def chained_hash(previous: bytes, month: date, sequence: int, read: KeyRead) -> bytes:
    """Return the SHA-256 of the previous hash and the row."""
    return hashlib.sha256(previous + canonical_bytes(month, sequence, read)).digest()


def extend(month: date, last: Link, reads: Sequence[KeyRead]) -> list[ChainedRead]:
    """Hang readings onto a month's chain, in their order."""
    rows = []
    for read in reads:
        sequence = last.sequence + 1
        last = Link(sequence, chained_hash(last.hash, month, sequence, read))
        rows.append(ChainedRead(month, sequence, read, last.hash))
    return rows


class ChainCheck:
    """Looks at the rows of one month in order, one at a time, and says in a sentence each thing that is wrong."""

    def __init__(self, month: date) -> None:
        self.month, self._name = month, month_name(month)
        self.last = Link.before_first(month)
        """The last row seen."""
        self.rows = 0

    def row(self, row: ChainedRead) -> Iterator[str]:
        """Look at the next row."""
        expected = self.last.sequence + 1
        if row.sequence > expected:
            yield f"{self._name}: {_rows(expected, row.sequence - 1)} missing, so row {row.sequence} cannot be checked"
        elif row.sequence < expected:
            yield f"{self._name}: row {row.sequence} is there more than once"
        elif row.hash != chained_hash(self.last.hash, self.month, row.sequence, row.read):
            before = f", or the hash of row {self.last.sequence}" if self.last.sequence else ""
            yield f"{self._name}: row {row.sequence} was edited{before}"
        if row.read.month != self.month:
            yield f"{self._name}: row {row.sequence} was read in {month_name(row.read.month)}: it is in the wrong month"
        self.rows += 1
        self.last = Link(row.sequence, row.hash)

    def end(self, head: Link | None) -> Iterator[str]:
        """Compare the last row with what the month's head says it is."""
        last = self.last
        if head is None and self.rows == 0:
            return
        if head is None:
            yield f"{self._name}: the head is missing, so whether rows after {last.sequence} were removed is not known"
        elif head.sequence > last.sequence:
            yield f"{self._name}: {_rows(last.sequence + 1, head.sequence)} missing at the end"
        elif head.sequence < last.sequence:
            yield f"{self._name}: the head was altered: it names row {head.sequence}, and the last is {last.sequence}"
        elif head.hash != last.hash:
            yield f"{self._name}: the head was altered, or row {last.sequence}: their hashes differ"


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"
