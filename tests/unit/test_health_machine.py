"""How a provider becomes unhealthy and healthy again, step by step."""

from __future__ import annotations

from uuid import UUID

import pytest

from llmrouter_server.health.machine import Health, Status
from unit.health_provider import FAULT, NEUTRAL, OK, OTHER_MODEL, START, Provider


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def unhealthy(provider: Provider) -> Provider:
    provider.tries(FAULT, FAULT, FAULT)
    return provider


# --- status ---


def test_nothing_is_known_of_a_provider_that_was_never_tried(provider: Provider) -> None:
    assert provider.health == Health(Status.UNKNOWN, 0, None, None, None, None, None, 0, None)


@pytest.mark.parametrize(
    ("successes", "failures", "status"),
    [
        (0, 2, Status.HEALTHY),  # too few to say
        (2, 2, Status.HEALTHY),
        (3, 2, Status.UNHEALTHY),
        (4, 1, Status.DEGRADED),
        (79, 21, Status.UNHEALTHY),
        (80, 20, Status.DEGRADED),
        (94, 6, Status.DEGRADED),
        (95, 5, Status.HEALTHY),
    ],
)
def test_the_share_of_successes_is_judged_from_five_attempts_on(
    provider: Provider, successes: int, failures: int, status: Status
) -> None:
    pairs = min(successes, failures)  # the share is lowest at the end, and no 3 failures are in a row
    provider.tries(*[OK] * (successes - pairs), *[OK, FAULT] * pairs, *[FAULT] * (failures - pairs))
    assert provider.health.attempts == successes + failures
    assert provider.status is status


def test_neutral_attempts_are_not_counted(provider: Provider) -> None:
    provider.tries(*[NEUTRAL] * 50)
    assert provider.status is Status.UNKNOWN
    provider.tries(FAULT, NEUTRAL, FAULT, NEUTRAL, FAULT)
    assert provider.status is Status.UNHEALTHY


def test_a_median_latency_over_twice_the_catalogues_is_degraded(provider: Provider) -> None:
    provider.tries(*[OK] * 4, latency_ms=201)
    assert provider.status is Status.HEALTHY
    provider.tries(OK, latency_ms=200)
    assert provider.status is Status.DEGRADED
    provider.tries(*[OK] * 4, latency_ms=200)
    assert provider.status is Status.HEALTHY


def test_the_catalogues_latency_is_weighted_by_how_often_each_model_was_used(provider: Provider) -> None:
    """9 times 100 ms and once 1000 ms: 190 ms are expected."""
    provider.tries(*[OK] * 9, latency_ms=380)
    provider.tries(OK, latency_ms=380, model=OTHER_MODEL)
    assert provider.status is Status.HEALTHY
    provider.tries(*[OK] * 9, latency_ms=381)
    provider.tries(OK, latency_ms=381, model=OTHER_MODEL)
    provider.tries(OK, latency_ms=381)
    assert provider.status is Status.DEGRADED


def test_a_latency_is_not_called_slow_when_the_catalogue_has_none_to_compare(provider: Provider) -> None:
    provider.tries(*[OK] * 30, latency_ms=60_000, model=UUID(int=99))
    assert provider.status is Status.HEALTHY


def test_the_window_is_the_last_fifteen_minutes_of_the_clock(provider: Provider) -> None:
    provider.tries(OK)
    provider.now += 15 * 60 - 0.001
    assert provider.health.attempts == 1
    provider.now = START + 15 * 60
    assert provider.status is Status.UNKNOWN


def test_old_successes_leave_the_window_and_time_alone_can_make_it_unhealthy(provider: Provider) -> None:
    provider.tries(*[OK] * 20)
    provider.now += 10 * 60
    provider.tries(FAULT, OK, FAULT, OK, FAULT, OK)
    assert provider.status is Status.DEGRADED
    provider.now += 5 * 60
    assert provider.status is Status.UNHEALTHY
    assert provider.health.next_probe_at == provider.now + 60


# --- unhealthy, half-open, healthy again ---


def test_two_failures_in_a_row_are_not_too_many_and_a_success_ends_the_row(provider: Provider) -> None:
    provider.tries(*[OK] * 20, FAULT, FAULT, OK, FAULT, FAULT)
    assert provider.health.consecutive_failures == 2
    assert provider.status is Status.DEGRADED


def test_an_unhealthy_provider_is_closed_for_a_minute_and_then_one_probe_a_minute_is_let_through(
    unhealthy: Provider,
) -> None:
    assert unhealthy.status is Status.UNHEALTHY
    assert unhealthy.health.next_probe_at == START + 60
    unhealthy.now += 59.999
    assert not unhealthy.probe()
    unhealthy.now = START + 60
    assert unhealthy.machine.probe_is_due(unhealthy.now)
    assert unhealthy.probe()
    assert not unhealthy.probe()
    assert unhealthy.health.next_probe_at == START + 120
    unhealthy.now += 59.999
    assert not unhealthy.probe()
    unhealthy.now = START + 120
    assert unhealthy.probe()


def test_there_is_nothing_to_probe_at_a_provider_that_is_not_unhealthy(provider: Provider) -> None:
    assert not provider.probe()
    provider.tries(FAULT, FAULT)
    assert not provider.probe()


def test_three_probes_that_succeed_make_it_healthy_with_a_clean_record(unhealthy: Provider) -> None:
    for minute in (1, 2, 3):
        unhealthy.now = START + 60 * minute
        assert unhealthy.status is Status.UNHEALTHY
        assert unhealthy.probe()
        unhealthy.tries(OK, latency_ms=80)
    assert unhealthy.health == Health(Status.HEALTHY, 3, 1.0, 80, 80, START + 180, None, 0, None)


def test_the_failures_of_before_are_forgotten_and_the_new_record_can_be_lost_again(unhealthy: Provider) -> None:
    unhealthy.tries(*[FAULT] * 100)
    unhealthy.now += 60
    unhealthy.tries(OK, OK, OK)
    assert unhealthy.status is Status.HEALTHY
    unhealthy.tries(FAULT)
    assert unhealthy.status is Status.HEALTHY
    unhealthy.tries(OK, FAULT)
    assert unhealthy.health.success_rate == pytest.approx(4 / 6)
    assert unhealthy.status is Status.UNHEALTHY


def test_what_is_told_late_of_the_time_before_it_recovered_is_forgotten_too(unhealthy: Provider) -> None:
    unhealthy.now += 60
    unhealthy.tries(OK, OK, OK)
    unhealthy.tries(*[FAULT] * 10, at=START + 59)
    assert unhealthy.health.attempts == 3


def test_a_probe_that_fails_closes_it_for_another_minute_and_the_row_of_successes_starts_again(
    unhealthy: Provider,
) -> None:
    unhealthy.now += 60
    unhealthy.tries(OK, OK, FAULT)
    assert unhealthy.health.next_probe_at == START + 120
    unhealthy.now += 59
    unhealthy.tries(OK, OK, OK)
    assert unhealthy.status is Status.UNHEALTHY
    unhealthy.now += 1
    unhealthy.tries(OK, OK)
    assert unhealthy.status is Status.UNHEALTHY
    unhealthy.tries(OK)
    assert unhealthy.status is Status.HEALTHY


def test_what_was_under_way_when_it_was_closed_neither_opens_it_nor_keeps_it_closed(unhealthy: Provider) -> None:
    unhealthy.now += 30
    unhealthy.tries(OK, OK, OK, OK, FAULT)
    assert unhealthy.health.next_probe_at == START + 60
    unhealthy.now += 60
    unhealthy.tries(FAULT, at=START + 59)
    assert unhealthy.health.next_probe_at == START + 60


def test_a_probe_of_which_nothing_is_heard_costs_a_minute(unhealthy: Provider) -> None:
    unhealthy.now += 60
    assert unhealthy.probe()
    unhealthy.tries(NEUTRAL)
    unhealthy.now += 60
    assert unhealthy.probe()


def test_silence_makes_it_neither_healthy_nor_unreachable(unhealthy: Provider) -> None:
    unhealthy.now += 10 * 3600
    health = unhealthy.health
    assert (health.status, health.attempts, health.success_rate) == (Status.UNHEALTHY, 0, None)
    assert unhealthy.probe()


def test_a_provider_that_is_asked_for_once_an_hour_recovers_all_the_same(unhealthy: Provider) -> None:
    for _ in range(3):
        unhealthy.now += 3600
        assert unhealthy.probe()
        unhealthy.tries(OK)
    assert (unhealthy.status, unhealthy.health.attempts) == (Status.HEALTHY, 1)


# --- time ---


def test_attempts_from_before_the_window_are_ignored_and_those_from_the_future_are_from_now(provider: Provider) -> None:
    provider.now += 3600
    provider.tries(FAULT, FAULT, FAULT, at=START)
    assert provider.status is Status.UNKNOWN
    provider.tries(OK, at=provider.now + 86_400)
    assert provider.health.last_success_at == provider.now
    provider.tries(FAULT, FAULT, FAULT)
    assert provider.status is Status.UNHEALTHY


def test_failures_that_are_told_late_are_in_the_row_in_which_they_happened(provider: Provider) -> None:
    provider.now += 100
    provider.tries(OK, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK, OK)
    provider.tries(FAULT, FAULT, FAULT, at=START)
    assert provider.health.consecutive_failures == 0
    assert provider.status is Status.DEGRADED  # 15 of 18


def test_a_success_that_is_told_late_ends_the_row_where_it_happened(provider: Provider) -> None:
    provider.now += 100
    provider.tries(FAULT, at=START + 10)
    provider.tries(FAULT, at=START + 30)
    provider.tries(OK, at=START + 20)
    assert provider.health.consecutive_failures == 1
    provider.tries(FAULT, at=START + 40)
    assert provider.health.consecutive_failures == 2
    assert provider.status is Status.HEALTHY


def test_failures_that_left_the_window_are_in_no_row(provider: Provider) -> None:
    provider.tries(FAULT, FAULT)
    provider.now = START + 899.999
    assert provider.health.consecutive_failures == 2
    provider.now = START + 900
    provider.tries(FAULT)
    assert provider.health.consecutive_failures == 1
    assert provider.status is Status.HEALTHY


def test_a_row_of_failures_is_as_long_as_what_is_left_of_it_in_the_window(provider: Provider) -> None:
    provider.tries(*[FAULT] * 5)
    provider.now += 600
    provider.tries(*[FAULT] * 3)
    provider.now = START + 15 * 60 - 0.001
    assert provider.health.consecutive_failures == 8
    provider.now = START + 15 * 60
    assert provider.health.consecutive_failures == 3


def test_probes_from_the_future_are_remembered_as_of_now(unhealthy: Provider) -> None:
    unhealthy.now += 60
    unhealthy.tries(OK, OK, at=unhealthy.now + 1e6)
    unhealthy.now += 900
    unhealthy.tries(OK)
    assert (unhealthy.status, unhealthy.health.attempts) == (Status.HEALTHY, 1)


def test_a_clock_that_is_set_back_loses_no_attempt_and_what_it_keeps_leaves_the_window_in_time(
    provider: Provider,
) -> None:
    provider.tries(OK, FAULT, FAULT)
    provider.now -= 7200
    health = provider.health
    assert (health.attempts, health.consecutive_failures) == (3, 2)
    assert health.last_success_at == health.last_failure_at == provider.now
    provider.tries(OK)
    assert provider.health.consecutive_failures == 0
    provider.now += 900
    assert provider.status is Status.UNKNOWN


def test_a_clock_that_is_set_back_delays_no_probe_and_no_recovery(unhealthy: Provider) -> None:
    unhealthy.now -= 7200
    assert not unhealthy.probe()
    unhealthy.now += 60
    assert unhealthy.probe()
    unhealthy.now -= 7200
    assert not unhealthy.probe()
    unhealthy.now += 60
    assert unhealthy.probe()
    unhealthy.tries(OK, OK)
    unhealthy.now -= 7200
    unhealthy.tries(OK)
    assert (unhealthy.status, unhealthy.health.last_success_at) == (Status.HEALTHY, unhealthy.now)
    unhealthy.now -= 7200
    unhealthy.tries(OK)
    assert unhealthy.health.attempts == 4


def test_a_clock_that_leaps_ahead_empties_the_window(provider: Provider) -> None:
    provider.tries(OK, latency_ms=5)
    provider.now += 1e9
    assert provider.health == Health(Status.UNKNOWN, 0, None, None, None, None, None, 0, None)
