"""A provider's machine with a clock of its own, for the tests of its health."""

from __future__ import annotations

from uuid import UUID

from llmrouter_server.health.machine import Attempt, Health, Outcome, ProviderMachine, Status
from llmrouter_server.health.window import MinuteReport

START = 1_800_000_000.0
"""The first moment of a minute."""
PROVIDER, MODEL, OTHER_MODEL = UUID(int=1), UUID(int=10), UUID(int=11)
CATALOG_MS = {MODEL: 100, OTHER_MODEL: 1000}
OK, FAULT, NEUTRAL = Outcome.SUCCESS, Outcome.PROVIDER_FAULT, Outcome.NEUTRAL


class Provider:
    """A machine with a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.machine, self.now = ProviderMachine(), START

    def tries(
        self, *outcomes: Outcome, model: UUID = MODEL, latency_ms: int | None = None, at: float | None = None
    ) -> None:
        for outcome in outcomes:
            moment = self.now if at is None else at
            self.machine.observe([Attempt(moment, PROVIDER, model, outcome, latency_ms)], self.now)

    def hears(self, *reports: MinuteReport) -> None:
        self.machine.hear(reports, self.now)

    def probe(self) -> bool:
        return self.machine.take_probe(self.now)

    @property
    def health(self) -> Health:
        return self.machine.health(self.now, CATALOG_MS)

    @property
    def status(self) -> Status:
        return self.health.status


def report(
    minute: float = START, successes: int = 0, failures: int = 0, in_a_row: int = 0, **times: float
) -> MinuteReport:
    latencies = {MODEL: [100] * successes} if successes else {}
    return MinuteReport(
        int(minute // 60),
        successes,
        failures,
        in_a_row,
        times.get("succeeded", minute if successes else None),
        times.get("failed", minute if failures else None),
        latencies,
    )
