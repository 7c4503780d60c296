"""Many providers and models: the monitor holds nobody up, and what happens meanwhile counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from llmrouter_server import errors
from llmrouter_server.health.machine import Attempt, ProviderMachine
from llmrouter_server.health.window import Peers, Window
from turns import in_one_go
from unit.health_provider import OK, START, report
from unit.health_world import MODEL, PROVIDER, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(request.node.name)
    await world.monitor.start()
    yield world
    await world.monitor.stop()


async def test_what_is_done_for_many_providers_holds_nobody_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = [uuid4() for _ in range(300)]
    world.monitor.observe(Attempt(START, each, MODEL, OK, 70) for each in providers)
    world.store.peers = {each: [report(successes=20)] for each in providers}
    async with in_one_go() as heard, in_one_go() as told:
        monkeypatch.setattr(ProviderMachine, "hear", heard.counted(ProviderMachine.hear))
        monkeypatch.setattr(ProviderMachine, "unwritten", told.counted(ProviderMachine.unwritten))
        await world.monitor.read()
        await world.monitor.write()
    assert (heard.most, heard.all) == (1, 300)
    assert (told.most, told.all) == (1, 300)
    assert max(map(len, world.store.written)) <= 20
    assert sorted(each for rows in world.store.written for each, _ in rows) == sorted(providers)
    assert {world.monitor.health(each).attempts for each in providers} == {21}


async def test_the_latencies_of_many_models_are_sorted_a_model_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [uuid4() for _ in range(300)]
    world.monitor.observe(Attempt(START, PROVIDER, each, OK, 70) for each in models for _ in range(20))
    world.store.peers = {PROVIDER: [replace(report(successes=40), latencies_ms={each: [90] * 40 for each in models})]}
    async with in_one_go() as own, in_one_go() as peers:
        monkeypatch.setattr(Window, "latencies", own.counted(Window.latencies))
        monkeypatch.setattr(Peers, "latencies", peers.counted(Peers.latencies))
        await world.monitor.read()
    assert world.view.live_latencies == dict.fromkeys(models, 90)
    assert (own.most, own.all) == (peers.most, peers.all) == (1, 300)


async def test_an_attempt_that_is_told_while_the_latencies_are_sorted_counts(world: World) -> None:
    models = [uuid4() for _ in range(30)]
    world.monitor.observe(Attempt(START, PROVIDER, each, OK, 70) for each in models for _ in range(20))
    looking = asyncio.create_task(world.monitor.look())
    for _ in range(20):
        await asyncio.sleep(0)
    world.monitor.observe(Attempt(START, PROVIDER, each, OK, 90) for each in models for _ in range(30))
    await looking
    assert world.view.live_latencies == dict.fromkeys(models, 90)


async def test_an_attempt_that_is_told_while_the_others_are_told_of_many_makes_nothing_forgotten(world: World) -> None:
    providers = [uuid4() for _ in range(50)]
    world.monitor.observe(Attempt(START, each, MODEL, OK, 70) for each in providers)
    world.store.peers = {each: [report(successes=20)] for each in providers}
    await world.monitor.read()
    writing = asyncio.create_task(world.monitor.write())
    await asyncio.sleep(0)
    world.clock.now += 1
    world.monitor.observe([Attempt(world.clock.now, providers[-1], MODEL, OK, 70)])
    await writing
    assert world.monitor.health(providers[-1]).attempts == 22
    await world.monitor.write()
    assert sum(minute.successes for rows in world.store.written for _, minute in rows) == 51


async def test_when_the_database_goes_away_in_the_midst_only_the_rest_is_told_again(world: World) -> None:
    providers = [uuid4() for _ in range(50)]
    world.monitor.observe(Attempt(START, each, MODEL, OK, 70) for each in providers)
    writing = asyncio.create_task(world.monitor.write())
    while not world.store.written:
        await asyncio.sleep(0)
    world.store.is_away = True
    with pytest.raises(errors.DomainError):
        await writing
    world.store.is_away = False
    await world.monitor.write()
    assert [each for rows in world.store.written for each, _ in rows] == providers
