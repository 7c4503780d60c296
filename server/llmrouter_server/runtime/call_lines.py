"""The access log: one line of JSON for each call, those of a moment written together."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

LOGGER = "llmrouter_server.access"
MOST_WAITING = 1000
"""Writes, each of one line or of all calls of a moment."""
FINISH_S = 5.0


class Call(NamedTuple):
    """A call that is over, as the access log and the metrics tell it."""

    method: str
    code: str
    reason: str | None
    ended_at: float
    """Seconds since 1970."""
    seconds: float
    request_id: str
    user_id: UUID | None

    def to_json(self) -> str:
        """Return the line. Nothing in it needs to be escaped: it is ours, or was checked letter by letter."""
        reason = f'"{self.reason}"' if self.reason is not None else "null"
        user_id = f'"{self.user_id}"' if self.user_id is not None else "null"
        return (
            f'{{"ts": "{_second(int(self.ended_at))}.{int(self.ended_at % 1 * 1000):03d}+00:00", "level": "info", '
            f'"logger": "{LOGGER}", "message": "call", "method": "{self.method}", "code": "{self.code}", '
            f'"reason": {reason}, "duration_ms": {self.seconds * 1000:.3f}, "request_id": "{self.request_id}", '
            f'"user_id": {user_id}}}'
        )


class CallLines(logging.LogRecord):
    """The lines of calls, oldest first, to be handled like every other record."""

    def __init__(self, calls: Sequence[Call]) -> None:
        super().__init__(LOGGER, logging.INFO, "", 0, "call", (), None)
        self.calls = calls

    def to_json(self) -> str:
        """Return a line for each."""
        return "\n".join(map(Call.to_json, self.calls))


class Beside:
    """A stream that a thread of its own writes to: a pipe that nobody reads, or a slow disk, holds up nobody else."""

    def __init__(self, stream: TextIO, dropped: Callable[[int], None]) -> None:
        """`dropped` is told how many lines could not be written, or not be kept until then."""
        self._stream, self._dropped = stream, dropped
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def write(self, text: str) -> None:
        """Take lines."""
        if self._waiting.qsize() >= MOST_WAITING:
            self._dropped(text.count("\n"))
        else:
            self._waiting.put(text)

    def flush(self) -> None:
        """Do nothing: what was taken is written as soon as it can be."""

    def finish(self) -> None:
        """Write what waits, for a while, and take no more."""
        self._waiting.put(None)
        self._writer.join(FINISH_S)

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # nobody will ever read it, or it is closed
                self._dropped(text.count("\n"))


class Output(logging.StreamHandler[Any]):
    """A handler before whose lines `tell` is called, so that calls that wait come before whatever else is told."""

    def __init__(self, tell: Callable[[], None], stream: TextIO | Beside) -> None:
        super().__init__(stream)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record, CallLines):
            self._tell()
        super().emit(record)

    def close(self) -> None:
        self._tell()
        if isinstance(self.stream, Beside):
            self.stream.finish()
        super().close()


@functools.lru_cache(maxsize=2)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).isoformat()[:19]
