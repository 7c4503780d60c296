"""The access log: one line of JSON for each call, made for next to nothing and written with others."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

GATHER_S = 0.05
"""How long lines of calls are gathered before they are written together: what a crash of the process may cost."""
MAX_GATHERED = 1000


LOGGER = "llmrouter_server.access"
_ALWAYS = vars(logging.LogRecord(LOGGER, logging.INFO, "", 0, "call", (), None))


class CallLine(logging.LogRecord):
    """The line of one call, to be handled like every other record.

    LogRecord's own __init__ is left out: to find out which thread and line made it takes longer than all the rest.
    """

    def __init__(
        self, method: str, code: str, *, reason: str | None, seconds: float, request_id: str, user_id: UUID | None
    ) -> None:
        self.__dict__.update(_ALWAYS)
        self.created = time.time()
        self.method, self.code, self.reason, self.seconds = method, code, reason, seconds
        self.request_id, self.user_id = request_id, user_id

    def to_json(self) -> str:
        """Return the line. Nothing in it needs to be escaped: it is ours, or was checked letter by letter."""
        created = self.created
        reason = f'"{self.reason}"' if self.reason is not None else "null"
        user_id = f'"{self.user_id}"' if self.user_id is not None else "null"
        return (
            f'{{"ts": "{_second(int(created))}.{int(created % 1 * 1000):03d}+00:00", "level": "info", '
            f'"logger": "{LOGGER}", "message": "call", "method": "{self.method}", "code": "{self.code}", '
            f'"reason": {reason}, "duration_ms": {self.seconds * 1000:.3f}, "request_id": "{self.request_id}", '
            f'"user_id": {user_id}}}'
        )


class Output(logging.StreamHandler[Any]):
    """Standard output. Lines of calls wait for each other for a moment; any other line takes them along at once."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self._gathered: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._gathered.append(self.format(record))
            if not isinstance(record, CallLine) or len(self._gathered) >= MAX_GATHERED:
                self.flush()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)

    def flush(self) -> None:
        """Write what was gathered."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._gathered:
                lines, self._gathered = self._gathered, []
                self.stream.write("\n".join(lines) + "\n")
            super().flush()
        finally:
            self.release()


@functools.lru_cache(maxsize=2)
def _second(since_epoch: int) -> str:
    return datetime.fromtimestamp(since_epoch, UTC).isoformat()[:19]
