"""What was seen of one provider, in minutes of the clock: what this replica saw itself, and what the others reported.

A minute counts while it is one of the last 15, the current one included. Times are seconds since the epoch.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from uuid import UUID

WINDOW_MINUTES = 15
LATENCIES_KEPT = 100
"""For each model and minute, the most recent ones: what bounds the memory."""
FAILURES_IN_A_ROW = 3
"""So many make a provider unhealthy, so as many are remembered singly."""
MINUTE_S = 60
NEVER = float("-inf")


def minute_of(at: float) -> int:
    """Return the number of the minute since the epoch."""
    return int(at // MINUTE_S)


@dataclass(frozen=True, slots=True)
class MinuteReport:
    """What one replica saw of a provider within one minute, as it tells the others."""

    minute: int
    """Minutes since the epoch."""
    successes: int
    failures: int
    """By the provider's fault."""
    consecutive_failures: int
    """The replica's failures since its last success, when it reported."""
    last_success_at: float | None
    last_failure_at: float | None
    latencies_ms: Mapping[UUID, Sequence[int]]
    """Of successes, by model, ascending."""
    changes: int = 0
    """How often the minute had changed; of no meaning to others."""


@dataclass(slots=True)
class _Minute:
    successes: int = 0
    failures: int = 0
    last_success_at: float = NEVER
    last_failure_at: float = NEVER
    latencies_ms: dict[UUID, deque[int]] = field(default_factory=dict)
    changes: int = 0
    written: int = 0

    def absorb(self, other: _Minute) -> None:
        self.successes += other.successes
        self.failures += other.failures
        self.last_success_at = max(self.last_success_at, other.last_success_at)
        self.last_failure_at = max(self.last_failure_at, other.last_failure_at)
        for model_id, latencies in other.latencies_ms.items():
            self.latencies_ms.setdefault(model_id, deque(maxlen=LATENCIES_KEPT)).extend(latencies)
        self.changes += 1


class Window:
    """What this replica saw itself."""

    def __init__(self) -> None:
        self._minutes: dict[int, _Minute] = {}
        self._newest_failures: list[float] = []
        """Of those since the last success, the newest 3, ascending."""
        self.successes = self.failures = self.consecutive_failures = 0
        self.last_success_at = self.last_failure_at = NEVER

    def add(self, at: float, model_id: UUID, latency_ms: int | None, *, succeeded: bool) -> None:
        """Count an attempt. `at` is within the window; it may be before others that were counted already."""
        number = minute_of(at)
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = _Minute()
        minute.changes += 1
        if succeeded:
            self.successes += 1
            minute.successes += 1
            minute.last_success_at = max(minute.last_success_at, at)
            self.last_success_at = max(self.last_success_at, at)
            if self._newest_failures:
                self._end_streak(at)
            if latency_ms is not None:
                latencies = minute.latencies_ms.get(model_id)
                if latencies is None:
                    latencies = minute.latencies_ms[model_id] = deque(maxlen=LATENCIES_KEPT)
                latencies.append(latency_ms)
            return
        self.failures += 1
        minute.failures += 1
        minute.last_failure_at = max(minute.last_failure_at, at)
        self.last_failure_at = max(self.last_failure_at, at)
        if at >= self.last_success_at:  # else it was before the last success, and is only told late
            self.consecutive_failures += 1
            insort(self._newest_failures, at)
            del self._newest_failures[:-FAILURES_IN_A_ROW]

    def advance(self, now: float) -> None:
        """Drop the minutes that have left the window. After a clock was set back, what lies in the future is now."""
        current = minute_of(now)
        for number in sorted(self._minutes):
            if number <= current - WINDOW_MINUTES:
                del self._minutes[number]
            elif number > current:
                self._minutes.setdefault(current, _Minute()).absorb(self._minutes.pop(number))
        self.successes = self.failures = 0
        self.last_success_at = self.last_failure_at = NEVER
        for minute in self._minutes.values():
            minute.last_success_at = min(minute.last_success_at, now)
            minute.last_failure_at = min(minute.last_failure_at, now)
            self.successes += minute.successes
            self.failures += minute.failures
            self.last_success_at = max(self.last_success_at, minute.last_success_at)
            self.last_failure_at = max(self.last_failure_at, minute.last_failure_at)
        self._newest_failures = [min(at, now) for at in self._newest_failures]
        self._end_streak((current - WINDOW_MINUTES + 1) * MINUTE_S, inclusive=False)
        self.consecutive_failures = min(self.consecutive_failures, self.failures)

    def forget(self) -> None:
        """Forget everything. The minutes stay as empty ones, so that the others are told of it."""
        for number, old in self._minutes.items():
            self._minutes[number] = _Minute(changes=old.changes + 1, written=old.written)
        self._newest_failures = []
        self.successes = self.failures = self.consecutive_failures = 0
        self.last_success_at = self.last_failure_at = NEVER

    def models(self) -> set[UUID]:
        """Return the models with known latencies."""
        return {model_id for minute in self._minutes.values() for model_id in minute.latencies_ms}

    def latencies(self, model_id: UUID) -> list[int]:
        """Return the latencies of a model's successes, in milliseconds, in no order."""
        found: list[int] = []
        for minute in self._minutes.values():
            found.extend(minute.latencies_ms.get(model_id, ()))
        return found

    def unwritten(self) -> list[MinuteReport]:
        """Return the minutes that have changed since they were last written."""
        return [
            MinuteReport(
                minute=number,
                successes=minute.successes,
                failures=minute.failures,
                consecutive_failures=self.consecutive_failures if minute.failures else 0,
                last_success_at=minute.last_success_at if minute.successes else None,
                last_failure_at=minute.last_failure_at if minute.failures else None,
                latencies_ms={model_id: sorted(latencies) for model_id, latencies in minute.latencies_ms.items()},
                changes=minute.changes,
            )
            for number, minute in self._minutes.items()
            if minute.changes != minute.written
        ]

    def written(self, reports: Iterable[MinuteReport]) -> None:
        """Note that these have been written; what has changed since then is still to be."""
        for report in reports:
            if report.minute in self._minutes:
                self._minutes[report.minute].written = report.changes

    def _end_streak(self, at: float, *, inclusive: bool = True) -> None:
        """Let the failures before `at` not be the last ones in a row any more."""
        later = [each for each in self._newest_failures if each > at or (each == at and not inclusive)]
        if len(later) < len(self._newest_failures):
            self._newest_failures, self.consecutive_failures = later, len(later)


class Peers:
    """What the other replicas reported."""

    def __init__(self) -> None:
        self._reports: tuple[MinuteReport, ...] = ()
        self._counted: list[MinuteReport] = []
        self.successes = self.failures = 0
        self.last_success_at = self.last_failure_at = NEVER
        self._latencies: dict[UUID, list[Sequence[int]]] | None = None
        self._sorted: dict[UUID, list[int]] = {}

    def replace(self, reports: Iterable[MinuteReport], now: float) -> None:
        """Take everybody's reports of the window in place of those from before; `advance` must follow.

        What was later than now, by another clock, was now: whatever this replica sees from here on comes after it.
        """
        self._reports = tuple(
            replace(
                each,
                minute=min(each.minute, minute_of(now)),
                last_success_at=min(each.last_success_at, now) if each.last_success_at is not None else None,
                last_failure_at=min(each.last_failure_at, now) if each.last_failure_at is not None else None,
            )
            for each in reports
        )

    def advance(self, now: float, counts_from: float) -> None:
        """Sum up the reports of the window, as far as they are about a time from `counts_from` on."""
        current = minute_of(now)
        self._counted = [
            report
            for each in self._reports
            if current - WINDOW_MINUTES < each.minute and (report := _since(each, counts_from)) is not None
        ]
        self.successes = sum(report.successes for report in self._counted)
        self.failures = sum(report.failures for report in self._counted)
        self.last_success_at = min(now, max((_or_never(each.last_success_at) for each in self._counted), default=NEVER))
        self.last_failure_at = min(now, max((_or_never(each.last_failure_at) for each in self._counted), default=NEVER))
        self._latencies = None
        self._sorted.clear()

    def models(self) -> AbstractSet[UUID]:
        """Return the models with known latencies."""
        return self._reported().keys()

    def latencies(self, model_id: UUID) -> list[int]:
        """Return the latencies of a model's successes, in milliseconds, ascending; sorted when they are asked for."""
        every = self._sorted.get(model_id)
        if every is None:
            every = self._sorted[model_id] = sorted(itertools.chain(*self._reported().get(model_id, ())))
        return every

    def _reported(self) -> Mapping[UUID, Sequence[Sequence[int]]]:
        if self._latencies is None:
            self._latencies = {}
            for report in self._counted:
                for model_id, latencies in report.latencies_ms.items():
                    self._latencies.setdefault(model_id, []).append(latencies)
        return self._latencies

    def successes_since(self, moment: float) -> int:
        """Count the successes that were surely not before `moment`."""
        return sum(report.successes for each in self._counted if (report := _since(each, moment)) is not None)

    def failures_in_a_row(self, last_success_at: float) -> int:
        """Return the most of any replica whose last failure is newer than everybody's last success, else 0."""
        newest = max(last_success_at, self.last_success_at)
        if self.last_failure_at <= newest:
            return 0
        return max(each.consecutive_failures for each in self._counted if _or_never(each.last_failure_at) > newest)


def _or_never(moment: float | None) -> float:
    return NEVER if moment is None else moment


def _since(report: MinuteReport, moment: float) -> MinuteReport | None:
    """Return the part of a report that is surely not from before `moment`: of a minute in its midst, the last ones."""
    if report.minute * MINUTE_S >= moment:
        return report
    succeeded = _or_never(report.last_success_at) >= moment
    failed = _or_never(report.last_failure_at) >= moment
    if not succeeded and not failed:
        return None
    return MinuteReport(
        minute=report.minute,
        successes=int(succeeded),
        failures=int(failed),
        consecutive_failures=report.consecutive_failures if failed else 0,
        last_success_at=report.last_success_at if succeeded else None,
        last_failure_at=report.last_failure_at if failed else None,
        latencies_ms={},
    )
