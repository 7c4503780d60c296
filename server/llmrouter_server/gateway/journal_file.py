"""A file of JSON lines that somebody else writes, read piece by piece. All of it blocks: call it from a thread."""

from __future__ import annotations

import enum
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.gateway.ended import ended_from
from llmrouter_server.gateway.plan import MOST_MS, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llmrouter_server.gateway.ended import Ended

log = logging.getLogger(__name__)

PIECE_LINES = 200
PIECE_BYTES = 4 * 1024 * 1024
LONGEST_LINE = 1024 * 1024
"""What is longer is no line of ours."""
BEGINNING_BYTES = 256
MOST_BYTES_SENT = 2**53
METADATA = ("plan", "attempts", "usage", "stream")


class Stop(enum.Enum):
    """Why a piece ends where it ends."""

    FULL = enum.auto()
    """There is more."""
    END = enum.auto()
    """The file ends."""
    WAIT = enum.auto()
    """What follows is not to be read yet."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading goes on."""

    file: Path
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines."""

    ended: list[Ended]
    lines: int
    """All of them, also those that cannot be read."""
    after: Place
    stop: Stop

    @property
    def unreadable(self) -> int:
        """How many lines are no rows of ours."""
        return self.lines - len(self.ended)


@dataclass(frozen=True, slots=True)
class _Remembered:
    inode: int
    offset: int
    beginning: str
    """Digest of the file's first bytes: an inode is soon given to another file, and a file can be written anew."""


class JournalFile:
    """The journal at `path`, and beside it how far it was read. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory = path.with_name(f"{path.name}.offset")

    def place(self) -> Place | None:
        """Return where to go on: after what was read, also when that file was renamed since. None: there is none."""
        remembered = self._remembered()
        if remembered is not None:
            for file in self._files():
                if _is_same(file, remembered):
                    return Place(file, remembered.offset)
            log.warning("the journal is another file than before; it is read from its beginning")
        return self._beginning()

    def read(self, place: Place, is_ripe: Callable[[Ended], bool]) -> Piece:
        """Read some lines, up to the first one that is not ripe or not complete yet."""
        ended: list[Ended] = []
        lines, offset, stop = 0, place.offset, Stop.FULL
        with place.file.open("rb") as file:
            file.seek(offset)
            while lines < PIECE_LINES and offset - place.offset < PIECE_BYTES:
                line = file.readline(LONGEST_LINE)
                if not line:
                    stop = Stop.END
                    break
                # The line that a file ends with may still be written, unless another file has followed.
                if not line.endswith(b"\n") and len(line) < LONGEST_LINE and not self._is_followed(place):
                    stop = Stop.WAIT
                    break
                row = read_line(line)
                if row is not None and not is_ripe(row):
                    stop = Stop.WAIT
                    break
                if row is not None:
                    ended.append(row)
                lines, offset = lines + 1, offset + len(line)
        return Piece(ended, lines, Place(place.file, offset), stop)

    def next(self, piece: Piece) -> Place | None:
        """Return where to go on after a piece, or None: there is no more for now."""
        if piece.stop is Stop.FULL:
            return piece.after
        if piece.stop is Stop.END and self._is_followed(piece.after):
            return self._beginning()
        return None

    def remember(self, place: Place) -> None:
        """Note that everything up to this place is done with."""
        values = {
            "inode": place.file.stat().st_ino,
            "offset": place.offset,
            "beginning": _beginning_of(place.file, place.offset),
        }
        written = self._memory.with_name(f"{self._memory.name}.{os.getpid()}")  # other workers may do the same
        written.write_text(json.dumps(values))
        written.replace(self._memory)

    def _remembered(self) -> _Remembered | None:
        try:
            values = json.loads(self._memory.read_bytes())
            return _Remembered(int(values["inode"]), int(values["offset"]), str(values["beginning"]))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            log.warning("it cannot be read how far the journal was read; it is read from its beginning")
            return None

    def _files(self) -> Iterator[Path]:
        """Return the journal, and what it may have been renamed to."""
        yield self._path
        yield from (file for file in sorted(self._path.parent.glob(f"{self._path.name}*")) if file != self._path)

    def _beginning(self) -> Place | None:
        return Place(self._path, 0) if self._path.exists() else None

    def _is_followed(self, place: Place) -> bool:
        return place.file != self._path and self._path.exists()


def read_line(line: bytes) -> Ended | None:
    """Read a line of the journal; None when it is none, or none of ours."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    flags = row.get("flags")
    return ended_from(
        {f"llmrouter.{name}": row.get(name) for name in METADATA},
        status=_number(row.get("status"), 999),
        flags=flags.split(",") if isinstance(flags, str) and flags != "-" else (),
        body_bytes=_number(row.get("bytes"), MOST_BYTES_SENT),
        duration_ms=_number(row.get("duration_ms"), MOST_MS),
    )


def _number(value: object, most: int) -> int:
    """Read a number; 0 where there is none, for which Envoy writes `-` or null."""
    try:
        return whole_number(value, most=most)
    except ValueError:
        return 0


def _is_same(file: Path, remembered: _Remembered) -> bool:
    try:
        stat = file.stat()
        return (
            stat.st_ino == remembered.inode
            and stat.st_size >= remembered.offset
            and _beginning_of(file, remembered.offset) == remembered.beginning
        )
    except FileNotFoundError:  # renamed again, or removed
        return False


def _beginning_of(file: Path, offset: int) -> str:
    with file.open("rb") as opened:
        return hashlib.sha256(opened.read(min(offset, BEGINNING_BYTES))).hexdigest()
