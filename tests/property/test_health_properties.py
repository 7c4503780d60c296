"""The laws of a provider's health, over any sequence of attempts, reports of others, probes and jumps of the clock."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from llmrouter_server.health.latency import nearest_rank, nearest_rank_of_all
from llmrouter_server.health.machine import Attempt, Health, Outcome, ProviderMachine, Status
from llmrouter_server.health.window import LATENCIES_KEPT, WINDOW_MINUTES, MinuteReport, Peers, Window, minute_of

if TYPE_CHECKING:
    from collections.abc import Iterable

START = 1_800_000_030.0
PROVIDER = UUID(int=1)
MODELS = [UUID(int=number) for number in (10, 11)]
CATALOG_MS = {MODELS[0]: 100, MODELS[1]: 300}

COUNTED = st.sampled_from([Outcome.SUCCESS, Outcome.PROVIDER_FAULT])
STEPS_S = st.sampled_from([0.0, 0.5, 1.0, 10.0, 30.0, 59.9, 60.0, 61.0, 300.0, 899.0, 900.0, 5000.0])
JUMPS_S = STEPS_S | STEPS_S.map(lambda step: -step) | st.floats(-1e6, 1e6)
LATENCIES = st.none() | st.sampled_from([0, 50, 100, 700, 86_400_000])
LATE_S = st.sampled_from([0.0, 0.0, 0.0, 0.1, 5.0, 70.0, 400.0, 1000.0, -1.0, -1e6])


@dataclass(frozen=True)
class Tried:
    """Attempts that are told now, each `late_s` after it happened."""

    outcome: Outcome
    model_id: UUID = MODELS[0]
    latency_ms: int | None = None
    late_s: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class Passed:
    """The clock moves by so much."""

    seconds: float


@dataclass(frozen=True)
class Probed:
    """Somebody asks for the probe."""


@dataclass(frozen=True)
class Heard:
    """The other replicas' reports arrive: minutes ago, successes, failures, failures in a row, seconds since each."""

    reports: tuple[tuple[int, int, int, int, float, float], ...]


Event = Tried | Passed | Probed | Heard

attempts = st.builds(Tried, COUNTED, st.sampled_from(MODELS), LATENCIES, LATE_S, st.integers(1, 3))
REPORT = st.tuples(
    st.integers(-1, 16), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.floats(0, 59), st.floats(0, 59)
)
reports = st.builds(Heard, st.lists(REPORT, max_size=4).map(tuple))
alone = st.lists(attempts | st.builds(Passed, STEPS_S) | st.just(Probed()), max_size=40)
anything = st.lists(attempts | st.builds(Passed, JUMPS_S) | st.just(Probed()) | reports, max_size=40)


class Run:
    """A machine with its clock."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.machine, self.now = ProviderMachine(), START
        for event in events:
            self.play(event)

    def play(self, event: Event) -> bool:
        """Play an event; True when it was a probe that was let through."""
        match event:
            case Passed(seconds):
                self.now += seconds
            case Probed():
                return self.machine.take_probe(self.now)
            case Heard(rows):
                self.machine.hear([self._report(*row) for row in rows], self.now)
            case Tried(outcome, model_id, latency_ms, late_s, times):
                for _ in range(times):
                    self.machine.observe(
                        [Attempt(self.now - late_s, PROVIDER, model_id, outcome, latency_ms)], self.now
                    )
        return False

    def health(self) -> Health:
        return self.machine.health(self.now, CATALOG_MS)

    def _report(
        self, minutes_ago: int, successes: int, failures: int, in_a_row: int, succeeded: float, failed: float
    ) -> MinuteReport:
        minute = minute_of(self.now) - minutes_ago
        return MinuteReport(
            minute=minute,
            successes=successes,
            failures=failures,
            consecutive_failures=in_a_row if failures else 0,
            last_success_at=minute * 60 + succeeded if successes else None,
            last_failure_at=minute * 60 + failed if failures else None,
            latencies_ms={MODELS[0]: [100] * successes} if successes else {},
        )


def state(machine: ProviderMachine) -> Any:
    """Return everything the machine knows, to compare."""
    inside = deepcopy(vars(machine))
    inside["_latencies"] = dict(inside["_latencies"].by_model())
    return {name: vars(value) if isinstance(value, Window | Peers) else value for name, value in inside.items()}


class Plain:
    """The rules once more, as plainly as can be: it remembers every attempt, and counts them all each time.

    For one replica alone, with a clock that is never set back.
    """

    def __init__(self) -> None:
        self.counted: list[tuple[float, bool]] = []
        self.now, self.closed_until, self.counts_from, self.in_a_row = START, inf, -inf, 0
        self.is_unhealthy = False

    def window(self) -> list[bool]:
        """Return whether each attempt that counts succeeded, in the order of time."""
        first = minute_of(self.now) - WINDOW_MINUTES + 1
        kept = [each for each in self.counted if minute_of(each[0]) >= first and each[0] >= self.counts_from]
        return [succeeded for _, succeeded in sorted(kept, key=lambda each: each[0])]

    def failures_in_a_row(self) -> int:
        return next((n for n, succeeded in enumerate(reversed(self.window())) if succeeded), len(self.window()))

    def judge(self) -> None:
        window = self.window()
        bad_share = len(window) >= 5 and sum(window) / len(window) < 0.8
        if not self.is_unhealthy and (bad_share or self.failures_in_a_row() >= 3):
            self.is_unhealthy, self.closed_until, self.in_a_row = True, self.now + 60, 0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.judge()

    def observe(self, at: float, succeeded: bool) -> None:
        at = min(at, self.now)
        if minute_of(at) <= minute_of(self.now) - WINDOW_MINUTES or at < self.counts_from:
            return
        self.counted.append((at, succeeded))
        if not self.is_unhealthy:
            self.judge()
        elif at >= self.closed_until:
            self.in_a_row = self.in_a_row + 1 if succeeded else 0
            if not succeeded:
                self.closed_until = self.now + 60
            elif self.in_a_row == 3:
                self.is_unhealthy, self.counts_from = False, self.closed_until


@given(alone)
@settings(max_examples=300)
def test_a_provider_is_unhealthy_by_the_rules_and_only_by_them(events: list[Event]) -> None:
    run, plain, probed_at = Run(), Plain(), -inf
    for event in events:
        if isinstance(event, Probed):
            is_due = plain.is_unhealthy and run.now >= max(plain.closed_until, probed_at + 60)
            assert run.play(event) == is_due
            probed_at = run.now if is_due else probed_at
        for _ in range(getattr(event, "times", 1)):
            if isinstance(event, Tried):
                run.play(Tried(event.outcome, event.model_id, event.latency_ms, event.late_s))
                plain.observe(run.now - event.late_s, event.outcome is Outcome.SUCCESS)
            elif isinstance(event, Passed):
                run.play(event)
                plain.pass_time(event.seconds)
            health, window = run.health(), plain.window()
            assert (health.status is Status.UNHEALTHY) == plain.is_unhealthy
            assert health.attempts == len(window)
            assert health.success_rate == (sum(window) / len(window) if window else None)
            assert min(health.consecutive_failures, 3) == min(plain.failures_in_a_row(), 3)
            if not plain.is_unhealthy:
                assert (health.status is Status.UNKNOWN) == (not window)
                assert health.next_probe_at is None
            else:
                assert health.next_probe_at == max(plain.closed_until, probed_at + 60)


@given(anything)
def test_figures_stay_in_their_ranges_whatever_happens(events: list[Event]) -> None:
    run = Run()
    for event in events:
        run.play(event)
        health = run.health()
        assert health.status in Status
        assert (health.status is Status.UNHEALTHY) == run.machine.is_unhealthy(run.now)
        assert health.attempts >= 0
        assert health.consecutive_failures >= 0
        assert (health.success_rate is None) == (health.attempts == 0)
        assert health.success_rate is None or 0 <= health.success_rate <= 1
        assert (health.next_probe_at is not None) == (health.status is Status.UNHEALTHY)
        for moment in (health.last_success_at, health.last_failure_at):
            assert moment is None or run.now - (WINDOW_MINUTES + 1) * 60 < moment <= run.now
        if health.p50_latency_ms is not None and health.p95_latency_ms is not None:
            assert 0 <= health.p50_latency_ms <= health.p95_latency_ms


@given(anything)
def test_three_failures_in_a_row_make_it_unhealthy_whatever_was_before(events: list[Event]) -> None:
    run = Run(events)
    run.play(Tried(Outcome.PROVIDER_FAULT, times=3))
    assert run.health().status is Status.UNHEALTHY


@given(anything, st.lists(STEPS_S, max_size=20))
def test_three_successes_while_half_open_end_it_and_time_alone_does_not_bring_it_back(
    events: list[Event], steps: list[float]
) -> None:
    run = Run(events)
    run.play(Tried(Outcome.PROVIDER_FAULT, times=3))
    due_at = run.health().next_probe_at
    assert due_at is not None
    run.now = max(run.now, due_at)
    assert run.machine.take_probe(run.now)
    run.play(Tried(Outcome.SUCCESS, latency_ms=100, times=3))
    assert run.health().status is Status.HEALTHY
    for step in steps:
        run.play(Passed(step))
        assert run.health().status in {Status.HEALTHY, Status.UNKNOWN}


@given(anything)
def test_a_failure_while_half_open_closes_it_for_another_minute(events: list[Event]) -> None:
    run = Run(events)
    run.play(Tried(Outcome.PROVIDER_FAULT, times=3))
    run.now = max(run.now, run.health().next_probe_at or 0)
    run.play(Tried(Outcome.SUCCESS, times=2))
    run.play(Tried(Outcome.PROVIDER_FAULT))
    assert not run.machine.take_probe(run.now + 59.9)
    run.now += 60
    run.play(Tried(Outcome.SUCCESS, times=2))
    assert run.health().status is Status.UNHEALTHY
    run.play(Tried(Outcome.SUCCESS))
    assert run.health().status is Status.HEALTHY


@given(anything, st.lists(STEPS_S, max_size=20))
def test_silence_never_makes_an_unhealthy_provider_healthy_nor_keeps_it_from_its_probe(
    events: list[Event], steps: list[float]
) -> None:
    run = Run(events)
    run.play(Tried(Outcome.PROVIDER_FAULT, times=3))
    for step in steps:
        run.play(Passed(step))
        assert run.health().status is Status.UNHEALTHY
    run.play(Passed(60))
    assert run.machine.probe_is_due(run.now)
    assert run.machine.take_probe(run.now)
    assert not run.machine.probe_is_due(run.now)


@given(anything, st.integers(0, 40), LATENCIES, LATE_S, JUMPS_S)
def test_a_neutral_attempt_changes_nothing_at_all(
    events: list[Event], place: int, latency_ms: int | None, late_s: float, elsewhen: float
) -> None:
    run = Run(events[:place])
    before = state(run.machine)
    attempt = Attempt(run.now - late_s, PROVIDER, MODELS[0], Outcome.NEUTRAL, latency_ms)
    run.machine.observe([attempt], run.now + elsewhen)
    assert state(run.machine) == before


@given(anything)
def test_at_most_one_probe_is_let_through_in_any_minute(events: list[Event]) -> None:
    """A minute of time that passes; a clock that is set back gives none of it back."""
    run, passed = Run(), inf
    for event in events:
        if isinstance(event, Passed):
            passed += max(event.seconds, 0)
        was_unhealthy = run.machine.is_unhealthy(run.now) if isinstance(event, Probed) else False
        if run.play(event):
            assert was_unhealthy
            assert passed >= 60 - 1e-3
            passed = 0


@given(anything)
def test_the_same_events_give_the_same_state(events: list[Event]) -> None:
    one, other = Run(events), Run(events)
    assert state(one.machine) == state(other.machine)
    assert one.health() == other.health()


BURSTS = st.builds(Tried, COUNTED, st.sampled_from(MODELS), LATENCIES, LATE_S, st.sampled_from([1, 150, 400]))


@given(st.lists(BURSTS | st.builds(Passed, JUMPS_S), max_size=30))
def test_memory_is_bounded_whatever_the_number_of_attempts(events: list[Event]) -> None:
    run = Run(events)
    own = run.machine._own
    assert len(own._minutes) <= WINDOW_MINUTES
    assert len(own._newest_failures) <= 3
    assert len(run.machine._recovering) < 3
    for minute in own._minutes.values():
        assert set(minute.latencies_ms) <= set(MODELS)
        assert all(len(each) <= LATENCIES_KEPT for each in minute.latencies_ms.values())
    assert all(len(each) <= WINDOW_MINUTES * LATENCIES_KEPT for each in run.machine._latencies.by_model().values())


@given(anything, st.sampled_from(MODELS))
def test_a_live_latency_is_the_median_of_at_least_twenty(events: list[Event], model_id: UUID) -> None:
    run = Run(events)
    live = run.machine.live_latency(model_id, run.now)
    known = sorted([*run.machine._own.latencies(model_id), *run.machine._peers.latencies(model_id)])
    assert (live is not None) == (len(known) >= 20)
    assert run.machine.live_latencies(run.now).get(model_id) == live
    if live is not None:
        assert sum(each < live for each in known) < len(known) / 2 <= sum(each <= live for each in known)


@given(
    st.lists(st.lists(LATENCIES.filter(bool) | st.integers(0, 20), min_size=1).map(sorted), min_size=1),
    st.integers(1, 100),
)
def test_a_percentile_of_many_models_is_that_of_all_their_latencies(several: list[list[int]], percent: int) -> None:
    together = sorted(each for ascending in several for each in ascending)
    assert nearest_rank_of_all(several, percent) == nearest_rank(together, percent)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(90, 510)), min_size=1, max_size=60))
def test_a_provider_is_slow_when_its_median_is_over_twice_the_mean_of_the_catalogue(
    tried: list[tuple[int, int]],
) -> None:
    run = Run()
    for number, latency_ms in tried:
        run.play(Tried(Outcome.SUCCESS, MODELS[number], latency_ms))
    median = nearest_rank(sorted(latency_ms for _, latency_ms in tried), 50)
    mean = sum(CATALOG_MS[MODELS[number]] for number, _ in tried) / len(tried)
    is_slow = len(tried) >= 5 and median > 2 * mean
    assert run.health().status is (Status.DEGRADED if is_slow else Status.HEALTHY)
