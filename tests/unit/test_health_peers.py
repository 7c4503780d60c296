"""A provider's latencies, and what replicas tell each other of it."""

from __future__ import annotations

import pytest

from llmrouter_server.health.latency import nearest_rank
from llmrouter_server.health.machine import Health, Status
from unit.health_provider import FAULT, MODEL, OK, OTHER_MODEL, START, Provider, report


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def unhealthy(provider: Provider) -> Provider:
    provider.tries(FAULT, FAULT, FAULT)
    return provider


# --- latencies ---


def test_a_model_has_a_live_latency_from_twenty_successes_on(provider: Provider) -> None:
    provider.tries(*[OK] * 19, latency_ms=70)
    provider.tries(FAULT, latency_ms=9999)
    provider.tries(OK)  # of unknown latency
    assert provider.machine.live_latency(MODEL, provider.now) is None
    assert provider.machine.live_latencies(provider.now) == {}
    provider.tries(OK, latency_ms=90)
    provider.tries(OK, latency_ms=10, model=OTHER_MODEL)
    assert provider.machine.live_latency(MODEL, provider.now) == 70
    assert provider.machine.live_latencies(provider.now) == {MODEL: 70}


def test_only_the_last_hundred_latencies_of_a_model_and_minute_are_kept(provider: Provider) -> None:
    provider.tries(*[OK] * 500, latency_ms=1)
    provider.tries(*[OK] * 100, latency_ms=2)
    assert provider.machine.live_latency(MODEL, provider.now) == 2
    assert provider.health.attempts == 600
    provider.now += 60
    provider.tries(*[OK] * 100, latency_ms=9)
    assert provider.machine.live_latency(MODEL, provider.now) == 2
    assert provider.health.p95_latency_ms == 9


@pytest.mark.parametrize(
    ("values", "p50", "p95"),
    [([7], 7, 7), ([1, 2], 1, 2), ([1, 2, 3], 2, 3), (range(1, 21), 10, 19), (range(1, 101), 50, 95)],
)
def test_percentiles_are_by_nearest_rank(values: list[int], p50: int, p95: int) -> None:
    assert (nearest_rank(values, 50), nearest_rank(values, 95)) == (p50, p95)


# --- what other replicas saw ---


def test_counts_and_latencies_of_other_replicas_add_up(provider: Provider) -> None:
    provider.tries(*[OK] * 10, latency_ms=100)
    provider.hears(report(successes=12, failures=1, in_a_row=0), report(START - 60, successes=20))
    health = provider.health
    assert (health.attempts, health.success_rate) == (43, pytest.approx(42 / 43))
    assert provider.machine.live_latency(MODEL, provider.now) == 100
    provider.hears(report(START - 60, successes=20))  # the other one is gone
    assert provider.health.attempts == 30


def test_a_row_of_failures_of_another_replica_counts_unless_anybody_succeeded_since(provider: Provider) -> None:
    provider.now += 50
    provider.tries(*[OK] * 16, at=START + 20)
    provider.hears(report(failures=3, in_a_row=3, failed=START + 10))
    assert provider.health.consecutive_failures == 0
    provider.hears(report(failures=3, in_a_row=3, failed=START + 30), report(successes=1, succeeded=START + 30))
    assert provider.health.consecutive_failures == 0
    provider.hears(report(failures=2, in_a_row=2, failed=START + 40), report(failures=1, in_a_row=1, failed=START + 41))
    assert provider.health.consecutive_failures == 2
    provider.hears(report(failures=3, in_a_row=3, failed=START + 40))
    assert provider.health.consecutive_failures == 3
    assert provider.status is Status.UNHEALTHY
    assert provider.health.next_probe_at == START + 100


def test_a_row_of_failures_of_its_own_does_not_count_when_another_replica_succeeded_since(provider: Provider) -> None:
    provider.tries(*[OK] * 20, FAULT, FAULT)
    provider.now += 50
    provider.hears(report(successes=1, succeeded=START + 10))
    assert provider.health.consecutive_failures == 0
    provider.tries(FAULT)
    assert provider.health.consecutive_failures == 3


def test_of_a_minute_in_which_it_became_half_open_only_what_came_surely_after_counts(provider: Provider) -> None:
    failed = report(START - 60, failures=3, in_a_row=3, failed=START - 40)
    provider.hears(failed)
    assert provider.health.next_probe_at == START + 20
    provider.now += 110
    provider.hears(failed, report(successes=50, succeeded=START + 50))
    assert provider.status is Status.UNHEALTHY
    provider.hears(failed, report(successes=50, succeeded=START + 50), report(START + 60, successes=2))
    assert (provider.status, provider.health.attempts) == (Status.HEALTHY, 3)
    provider.hears(report(failures=9, failed=START + 55), report(START + 60, successes=50))
    assert (provider.status, provider.health.attempts) == (Status.HEALTHY, 51)


def test_successes_of_another_replica_while_half_open_end_it_for_who_saw_no_failure(provider: Provider) -> None:
    provider.hears(report(failures=3, in_a_row=3))
    failed = report(failures=3, in_a_row=3)
    provider.now += 200
    provider.hears(failed, report(START + 60, successes=1), report(START + 120, successes=1))
    assert provider.status is Status.UNHEALTHY
    provider.hears(failed, *(report(START + 60 * minute, successes=1) for minute in (1, 2, 3)))
    assert (provider.status, provider.health.attempts) == (Status.HEALTHY, 3)
    provider.hears(failed, *(report(START + 60 * minute, successes=1) for minute in (1, 2, 3)))
    assert provider.health.success_rate == 1.0


def test_who_saw_failures_itself_needs_a_success_of_its_own(unhealthy: Provider) -> None:
    unhealthy.now += 120
    others = report(START + 60, successes=50)
    unhealthy.hears(others)
    assert unhealthy.status is Status.UNHEALTHY
    unhealthy.tries(OK)
    assert (unhealthy.status, unhealthy.health.attempts) == (Status.HEALTHY, 51)


def test_a_failed_probe_of_another_replica_closes_it_here_too(unhealthy: Provider) -> None:
    unhealthy.now += 70
    unhealthy.tries(OK, OK)
    unhealthy.hears(report(START + 60, failures=1, in_a_row=4, failed=START + 65))
    assert unhealthy.health.next_probe_at == START + 125
    unhealthy.tries(OK)
    assert unhealthy.status is Status.UNHEALTHY


def test_a_replica_that_starts_after_the_others_saw_it_recover_takes_it_for_healthy(provider: Provider) -> None:
    provider.now += 240
    provider.hears(
        report(failures=9, in_a_row=9, failed=START + 5),
        *(report(START + 60 * minute, successes=2) for minute in (2, 3)),
    )
    assert (provider.status, provider.health.attempts) == (Status.HEALTHY, 4)


def test_reports_leave_the_window_even_when_nothing_more_is_heard(provider: Provider) -> None:
    provider.hears(report(successes=30))
    assert provider.health.attempts == 30
    provider.now += 900
    assert provider.health == Health(Status.UNKNOWN, 0, None, None, None, None, None, 0, None)


def test_another_replica_whose_clock_is_ahead_is_heard_as_of_now(provider: Provider) -> None:
    provider.hears(report(START + 60, successes=1, succeeded=START + 90))
    assert provider.health.last_success_at == START
    ahead = Provider()
    ahead.hears(report(START + 60, successes=1))
    ahead.now += 900
    assert ahead.status is Status.UNKNOWN
    provider.now += 1
    provider.tries(FAULT, FAULT, FAULT)
    assert provider.status is Status.UNHEALTHY


# --- what is told to the others ---


def test_what_changed_is_told_once_and_what_changes_meanwhile_once_more(provider: Provider) -> None:
    provider.tries(OK, latency_ms=9)
    provider.tries(OK, latency_ms=7)
    provider.now += 1
    provider.tries(FAULT)
    [told] = provider.machine.unwritten(provider.now)
    assert (told.minute, told.successes, told.failures, told.consecutive_failures) == (START // 60, 2, 1, 1)
    assert (told.last_success_at, told.last_failure_at, told.latencies_ms) == (START, START + 1, {MODEL: [7, 9]})
    provider.tries(OK)
    provider.machine.written([told])
    [again] = provider.machine.unwritten(provider.now)
    assert again.successes == 3
    provider.machine.written([again])
    assert provider.machine.unwritten(provider.now) == []


def test_what_is_forgotten_is_told_as_nothing(unhealthy: Provider) -> None:
    unhealthy.machine.written(unhealthy.machine.unwritten(unhealthy.now))
    unhealthy.now += 60
    unhealthy.tries(OK, OK, OK)
    forgotten, since = sorted(unhealthy.machine.unwritten(unhealthy.now), key=lambda each: each.minute)
    assert (forgotten.successes, forgotten.failures, forgotten.last_failure_at) == (0, 0, None)
    assert (since.successes, since.failures) == (3, 0)
