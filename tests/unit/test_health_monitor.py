"""The monitor: what it shows, tells the others and hears of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from llmrouter_server import errors
from llmrouter_server.health.machine import Attempt, Outcome, Status
from llmrouter_server.health.monitor import HealthMonitor, HealthView
from unit.health_provider import FAULT, NEUTRAL, OK, START, report
from unit.health_world import MODEL, PROVIDER, World, sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(request.node.name)
    await world.monitor.start()
    yield world
    await world.monitor.stop()


# --- the view ---


async def test_at_first_nothing_is_held_against_anybody(world: World) -> None:
    assert world.view == HealthView(frozenset(), frozenset(), {})
    assert world.monitor.health(uuid4()).status is Status.UNKNOWN
    assert not world.monitor.take_probe(uuid4())


async def test_the_view_is_the_same_object_until_something_changes(world: World) -> None:
    before = world.view
    world.tries(OK, OK, FAULT, NEUTRAL)
    await world.clock.passes(30)
    assert world.view is before


async def test_a_provider_that_becomes_unhealthy_is_so_in_the_view_at_once(world: World) -> None:
    world.tries(FAULT, FAULT)
    assert world.view.unhealthy == frozenset()
    world.tries(FAULT)
    assert world.view == HealthView(frozenset({PROVIDER}), frozenset(), {})


async def test_a_provider_that_turns_and_turns_back_within_one_batch_is_as_it_ended(world: World) -> None:
    world.tries(FAULT, FAULT, FAULT)
    world.clock.now += 60
    world.tries(OK, OK, OK, FAULT, FAULT, FAULT)
    assert world.monitor.health(PROVIDER).next_probe_at == world.clock.now + 60
    await world.clock.passes(1)
    assert world.view.unhealthy == {PROVIDER}
    assert world.view.probe_due == frozenset()


async def test_a_probe_is_due_after_a_minute_and_taken_once(world: World) -> None:
    world.tries(FAULT, FAULT, FAULT)
    await world.clock.passes(59)
    assert world.view.probe_due == frozenset()
    await world.clock.passes(2)
    assert world.view.probe_due == {PROVIDER}
    assert world.monitor.take_probe(PROVIDER)
    assert world.view.probe_due == frozenset()
    assert world.view.unhealthy == {PROVIDER}
    assert not world.monitor.take_probe(PROVIDER)


@pytest.mark.parametrize("is_told_by_others", [False, True])
async def test_a_provider_rests_for_as_long_as_is_set(world: World, *, is_told_by_others: bool) -> None:
    monitor = HealthMonitor(world.store, world.catalog, rest_s=5, now=lambda: world.clock.now)
    if is_told_by_others:
        world.tries(FAULT, FAULT, FAULT)
        world.store.peers = {PROVIDER: world.monitor._machines[PROVIDER].unwritten(world.clock.now)}
        await monitor.read()
    else:
        monitor.observe(Attempt(world.clock.now, PROVIDER, MODEL, FAULT, None) for _ in range(3))
    assert monitor.health(PROVIDER).next_probe_at == world.clock.now + 5
    world.clock.now += 5
    assert monitor.take_probe(PROVIDER)
    assert monitor.health(PROVIDER).next_probe_at == world.clock.now + 5


async def test_live_latencies_are_brought_up_to_date_once_a_second(world: World) -> None:
    world.tries(*[OK] * 20, latency_ms=70)
    assert world.view.live_latencies == {}
    await world.clock.passes(1)
    assert world.view.live_latencies == {MODEL: 70}
    world.tries(*[OK] * 40, latency_ms=90)
    assert world.view.live_latencies == {MODEL: 70}
    await world.clock.passes(1)
    assert world.view.live_latencies == {MODEL: 90}
    await world.clock.passes(900)
    assert world.view.live_latencies == {}


async def test_a_view_that_was_taken_does_not_change(world: World) -> None:
    world.tries(*[OK] * 20, latency_ms=70)
    await world.clock.passes(1)
    taken = world.view
    with pytest.raises(TypeError):
        taken.live_latencies[MODEL] = 1
    await world.clock.passes(900)
    assert taken.live_latencies == {MODEL: 70}


# --- telling the others ---


async def test_what_has_changed_is_written_every_ten_seconds_and_nothing_else_is(world: World) -> None:
    await world.clock.passes(9)
    world.tries(OK)
    assert world.store.written == []
    await world.clock.passes(1)
    assert [(provider, each.successes) for [(provider, each)] in world.store.written] == [(PROVIDER, 1)]
    await world.clock.passes(600)
    assert len(world.store.written) == 1


async def test_a_write_that_fails_is_tried_again_with_all_that_is_new_and_logged_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.is_away = True
    world.tries(OK)
    await world.clock.passes(30)
    world.tries(OK)
    await world.clock.passes(5)
    world.store.is_away = False
    await world.clock.passes(5)
    assert [each.successes for _, each in world.store.written[0]] == [2]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["writing"]
    assert caplog.records[0].exc_info is None
    world.store.is_away = True
    world.tries(OK)
    await world.clock.passes(30)
    assert len(caplog.records) == 2
    world.store.is_away = False


async def test_what_was_not_written_yet_is_written_at_the_end(world: World) -> None:
    world.tries(OK)
    await world.monitor.stop()
    assert len(world.store.written) == 1


async def test_a_minute_that_leaves_the_window_unwritten_is_given_up(world: World) -> None:
    world.store.is_away = True
    world.tries(OK)
    await world.clock.passes(900)
    world.store.is_away = False
    await world.clock.passes(20)
    assert world.store.written == []


# --- hearing the others ---


async def test_what_others_saw_is_read_at_the_start_and_then_within_a_minute(world: World) -> None:
    assert world.store.read_at == [START]
    world.store.peers = {PROVIDER: [report(failures=3, in_a_row=3)]}
    await world.clock.passes(39)
    assert world.view.unhealthy == frozenset()
    await world.clock.passes(1)
    assert world.view.unhealthy == {PROVIDER}
    await world.clock.passes(40)
    assert world.store.read_at == [START, START + 40, START + 80]


async def test_replicas_spread_their_reads() -> None:
    world = World("spread")
    drawn = []
    monitor = HealthMonitor(
        world.store,
        world.catalog,
        now=lambda: world.clock.now,
        sleep=world.clock.sleep,
        draw=lambda low, high: drawn.append((low, high)) or high,
    )
    await monitor.start()
    await world.clock.passes(100)
    await monitor.stop()
    assert set(drawn) == {(40, 50)}
    assert world.store.read_at == [START, START + 50, START + 100]


@pytest.mark.parametrize("error", [errors.unavailable(), RuntimeError("a defect")])
async def test_without_the_database_it_goes_on_by_what_it_sees_itself(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    world = World(f"away {error}")
    world.store.is_away, world.store.error = True, error
    await world.monitor.start()
    world.tries(FAULT, FAULT, FAULT)
    assert world.view.unhealthy == {PROVIDER}
    await world.clock.passes(180)
    assert world.monitor.take_probe(PROVIDER)
    world.tries(OK, OK, OK)
    assert world.view.unhealthy == frozenset()
    await world.monitor.stop()
    ours = [record for record in caplog.records if record.name == "llmrouter_server.health.monitor"]
    assert sorted(record.getMessage().split()[0] for record in ours) == ["reading", "writing"]
    assert {record.levelno for record in ours} == {logging.WARNING}
    assert all((record.exc_info is not None) == isinstance(error, RuntimeError) for record in ours)


# --- metrics ---


async def test_each_provider_shows_one_status(world: World) -> None:
    assert world.status_shown() == ["UNKNOWN"]
    world.tries(FAULT, FAULT, FAULT)
    await world.clock.passes(1)
    assert world.status_shown() == ["UNHEALTHY"]
    await world.clock.passes(60)
    world.tries(OK, OK, OK)
    await world.clock.passes(1)
    assert world.status_shown() == ["HEALTHY"]
    world.tries(*[OK] * 10, latency_ms=1000)
    await world.clock.passes(1)
    assert world.status_shown() == ["DEGRADED"]


async def test_a_provider_that_was_renamed_or_disabled_shows_none_under_its_name(world: World) -> None:
    before, world.name = world.name, world.name + " anew"
    await world.clock.passes(50)
    assert world.status_shown(before) == []
    assert world.status_shown() == ["UNKNOWN"]
    world.is_enabled = False
    await world.clock.passes(50)
    assert world.status_shown() == []
    world.tries(OK)
    assert sample("attempts_total", provider=world.name, outcome="success") == 1


async def test_attempts_are_counted_by_provider_and_outcome(world: World) -> None:
    world.tries(OK, OK, FAULT, NEUTRAL, NEUTRAL, NEUTRAL)
    counts = [sample("attempts_total", provider=world.name, outcome=each.value) for each in Outcome]
    assert counts == [2, 1, 3]
