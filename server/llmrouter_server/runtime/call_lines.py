"""The access log: one line of JSON for each call, those of a moment written together."""

from __future__ import annotations

import functools
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

LOGGER = "llmrouter_server.access"


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


class Output(logging.StreamHandler[Any]):
    """Standard output. Whatever else is told, `tell` is called before, so that calls that wait come before it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__(sys.stdout)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record, CallLines):
            self._tell()
        super().emit(record)

    def close(self) -> None:
        self._tell()
        super().close()


@functools.lru_cache(maxsize=2)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).isoformat()[:19]
