"""How well one provider does, judged from its attempts: a plain state machine that is told the time.

A provider becomes UNHEALTHY at 3 failures in a row, or when under 80 % of at least 5 attempts in the window succeed.
Then it is closed for 60 s (or as long as is set), and half-open after that: one probe every 60 s, as long as none
fails; a failure closes it for another 60 s. 3 successes in a row while it is half-open end it, and everything from
before it was half-open is forgotten: with the old failures it would be UNHEALTHY again at once, and without them the
old successes would flatter it. Those 3 are its new record, which it can lose as quickly as any other.

Silence changes nothing for an UNHEALTHY provider: nobody routes to it, so its window runs empty, which proves nothing.
It stays half-open, and the next request that could use it is its probe. The 3 successes may lie further apart than the
window is long, or a provider that is seldom asked for could never recover.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmrouter_server.health.latency import Latencies
from llmrouter_server.health.window import (
    FAILURES_IN_A_ROW,
    MINUTE_S,
    NEVER,
    WINDOW_MINUTES,
    Peers,
    Window,
    minute_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from llmrouter_server.health.window import MinuteReport

JUDGED_FROM = 5
"""Attempts in the window, before the share of successes says anything."""
UNHEALTHY_BELOW_PERCENT = 80
DEGRADED_BELOW_PERCENT = 95
REST_S = 60.0
"""How long an UNHEALTHY provider is left alone before each probe, unless set otherwise."""
SUCCESSES_IN_A_ROW = 3


class Outcome(enum.Enum):
    """How an attempt ended, as far as the provider is concerned."""

    SUCCESS = "success"
    PROVIDER_FAULT = "provider_fault"
    NEUTRAL = "neutral"
    """Nobody's fault, the caller's, or not known: it counts neither way."""


class Status(enum.Enum):
    """What it all amounts to. The values are those of the protobuf enum."""

    HEALTHY = 1
    DEGRADED = 2
    UNHEALTHY = 3
    UNKNOWN = 4


class Attempt(NamedTuple):
    """One try at a provider."""

    at: float
    """Seconds since the epoch."""
    provider_id: UUID
    model_id: UUID
    outcome: Outcome
    latency_ms: int | None
    """None: not known."""


@dataclass(frozen=True, slots=True)
class Health:
    """A provider's health at one moment, over the window. Times are seconds since the epoch."""

    status: Status
    attempts: int
    success_rate: float | None
    """0 to 1; None: no attempts."""
    p50_latency_ms: int | None
    """Of the successes, by nearest rank; None: none with a known latency."""
    p95_latency_ms: int | None
    last_success_at: float | None
    last_failure_at: float | None
    consecutive_failures: int
    next_probe_at: float | None
    """None: not UNHEALTHY."""


class ProviderMachine:
    """One provider's state. Every method is told the time, and first does what time alone does.

    The time may jump: forward, as if nothing had been tried meanwhile; backward, and what was later is taken for now.
    """

    def __init__(self, rest_s: float = REST_S) -> None:
        self._rest_s = rest_s
        self._own, self._peers = Window(), Peers()
        self._latencies = Latencies(self._own, self._peers)
        self._now = NEVER
        self._minute = 0
        self._closed_until: float | None = None
        """UNHEALTHY while there is one; half-open from then on."""
        self._probed_at = NEVER
        self._recovering: list[tuple[float, Attempt]] = []
        """Own successes in a row while half-open, each with when it counts."""
        self._counts_from = NEVER
        """When the half-open time began that ended well; what was before is forgotten."""

    def observe(self, attempts: Iterable[Attempt], now: float) -> bool:
        """Count attempts, and tell whether it became unhealthy by them, or is so no more.

        One from the future is from now; one from before the window counts no more.
        """
        telling = [attempt for attempt in attempts if attempt.outcome is not Outcome.NEUTRAL]
        if not telling:
            return False
        self._advance(now)
        was_closed = self._closed_until is not None
        for attempt in telling:
            at = min(attempt.at, now)
            if self._counts(at):
                self._count(attempt, at, now)
        return was_closed is not (self._closed_until is not None)

    def _count(self, attempt: Attempt, at: float, now: float) -> None:
        succeeded = attempt.outcome is Outcome.SUCCESS
        self._own.add(at, attempt.model_id, attempt.latency_ms, succeeded=succeeded)
        if succeeded and attempt.latency_ms is not None:
            self._latencies.added(attempt.model_id)
        if self._closed_until is None:
            self._judge(now)
        elif at >= self._closed_until:  # what was under way before says nothing about the time since
            if succeeded:
                self._recovering.append((at, attempt))
                self._try_to_recover()
            else:
                self._close(now)

    def hear(self, reports: Iterable[MinuteReport], now: float) -> None:
        """Take what the other replicas saw, all of it, in place of what they had reported before."""
        self._advance(now)
        self._peers.replace(reports, now)
        self._peers.advance(now, self._counts_from)
        self._latencies.changed()
        if self._closed_until is None:
            self._judge(max(self._own.last_failure_at, self._peers.last_failure_at))
        elif self._peers.last_failure_at >= self._closed_until:
            self._close(self._peers.last_failure_at)
        self._try_to_recover()

    def is_unhealthy(self, now: float) -> bool:
        """Tell whether it must not be routed to."""
        self._advance(now)
        return self._closed_until is not None

    def probe_is_due(self, now: float) -> bool:
        """Tell whether it is unhealthy and may be tried once."""
        self._advance(now)
        due_at = self._next_probe_at()
        return due_at is not None and now >= due_at

    def take_probe(self, now: float) -> bool:
        """Take the one attempt that is let through; False when none is due, or it is not UNHEALTHY.

        A probe of which nothing more is heard costs as long as a failed one: then the next one is due.
        """
        if not self.probe_is_due(now):
            return False
        self._probed_at = now
        return True

    def sort(self, now: float) -> Iterator[None]:
        """Sort a model's latencies with each step; what is asked for afterwards finds them sorted.

        There may be many. Anything may be done between two steps.
        """
        self._advance(now)
        return self._latencies.sort()

    def live_latencies(self, now: float) -> Mapping[UUID, int]:
        """Return the median latency in milliseconds (nearest rank) of each model with at least 20 in the window."""
        self._advance(now)
        return self._latencies.live()

    def live_latency(self, model_id: UUID, now: float) -> int | None:
        """Return the median latency in milliseconds (nearest rank); None: less than 20 in the window."""
        self._advance(now)
        return self._latencies.live().get(model_id)

    def status(self, now: float, catalog_ms: Mapping[UUID, int]) -> Status:
        """Return the status. `catalog_ms`: each model's latency as the catalogue has it, in milliseconds."""
        self._advance(now)
        successes, failures = self._successes_and_failures()
        attempts = successes + failures
        if self._closed_until is not None:
            return Status.UNHEALTHY
        if not attempts:
            return Status.UNKNOWN
        if attempts >= JUDGED_FROM and successes * 100 < attempts * DEGRADED_BELOW_PERCENT:
            return Status.DEGRADED
        return Status.DEGRADED if self._latencies.are_slow(catalog_ms) else Status.HEALTHY

    def health(self, now: float, catalog_ms: Mapping[UUID, int]) -> Health:
        """Return all that is known. `catalog_ms`: each model's latency as the catalogue has it, in milliseconds."""
        status = self.status(now, catalog_ms)
        successes, failures = self._successes_and_failures()
        p50, p95 = self._latencies.p50_and_p95()
        return Health(
            status=status,
            attempts=successes + failures,
            success_rate=successes / (successes + failures) if successes or failures else None,
            p50_latency_ms=p50,
            p95_latency_ms=p95,
            last_success_at=_moment(max(self._own.last_success_at, self._peers.last_success_at)),
            last_failure_at=_moment(max(self._own.last_failure_at, self._peers.last_failure_at)),
            consecutive_failures=self._failures_in_a_row(),
            next_probe_at=self._next_probe_at(),
        )

    def unwritten(self, now: float) -> list[MinuteReport]:
        """Return what this replica saw that the others have not been told."""
        self._advance(now)
        return self._own.unwritten()

    def written(self, reports: Iterable[MinuteReport]) -> None:
        """Note that the others have been told these."""
        self._own.written(reports)

    def _advance(self, now: float) -> None:
        minute, before = minute_of(now), self._now
        self._now = now
        if minute == self._minute and now >= before:
            return
        self._minute = minute
        if now < before:  # the clock was set back: what was at a later time was just now; the others will tell again
            self._peers.replace((), now)
            self._probed_at, self._counts_from = min(self._probed_at, now), min(self._counts_from, now)
            if self._closed_until is not None:
                was_half_open = before >= self._closed_until
                self._closed_until = min(self._closed_until, now if was_half_open else now + self._rest_s)
            self._recovering = [(min(at, now), attempt) for at, attempt in self._recovering]
        self._own.advance(now)
        self._peers.advance(now, self._counts_from)
        self._latencies.changed()
        self._judge(now)

    def _judge(self, since: float) -> None:
        """See whether it has become UNHEALTHY, at `since`."""
        if not (self._own.failures or self._peers.failures) or self._closed_until is not None:
            return
        successes, failures = self._successes_and_failures()
        attempts = successes + failures
        fails_often = attempts >= JUDGED_FROM and successes * 100 < attempts * UNHEALTHY_BELOW_PERCENT
        if fails_often or self._failures_in_a_row() >= FAILURES_IN_A_ROW:
            self._close(since)

    def _close(self, since: float) -> None:
        self._closed_until = since + self._rest_s
        self._recovering.clear()

    def _try_to_recover(self) -> None:
        """End UNHEALTHY at 3 successes while half-open, anybody's: any failure would have closed it again.

        A replica that saw failures itself wants one success of its own among them, since the way from here to the
        provider may be what fails.
        """
        since = self._closed_until
        if since is None or (self._own.failures and not self._recovering):
            return
        if len(self._recovering) + self._peers.successes_since(since) < SUCCESSES_IN_A_ROW:
            return
        self._closed_until, self._counts_from = None, since
        self._own.forget()
        for at, attempt in self._recovering:  # where requests are rarer than the window is long, some are left out
            if self._counts(at):
                self._own.add(at, attempt.model_id, attempt.latency_ms, succeeded=True)
        self._recovering.clear()
        self._peers.advance(self._now, self._counts_from)
        self._latencies.changed()

    def _counts(self, at: float) -> bool:
        return at >= self._counts_from and at >= (self._minute - WINDOW_MINUTES + 1) * MINUTE_S

    def _successes_and_failures(self) -> tuple[int, int]:
        return self._own.successes + self._peers.successes, self._own.failures + self._peers.failures

    def _failures_in_a_row(self) -> int:
        own = self._own.consecutive_failures if self._own.last_failure_at >= self._peers.last_success_at else 0
        return max(own, self._peers.failures_in_a_row(self._own.last_success_at))

    def _next_probe_at(self) -> float | None:
        return None if self._closed_until is None else max(self._closed_until, self._probed_at + self._rest_s)


def _moment(at: float) -> float | None:
    return None if at == NEVER else at
