"""What a client sees when parts of the stack stop, hang or die under it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from typing import TYPE_CHECKING

import asyncpg
import pytest

import golden
import http_json
from contract import Contract
from golden import Player
from llmrouter import AsyncClient, LlmrouterError, Unavailable
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.routing_service_pb2 import RouteRequest
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest
from llmrouter.v2.usage_service_pb2 import GetUsageRequest, RecordUsageRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from llmrouter_server.runtime.local_stack import LocalStack

DEADLINE_S = 10
RECOVERY_S = 15


@pytest.fixture(scope="module")
async def broken(own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]]) -> AsyncIterator[LocalStack]:
    """A stack that the tests of this file break and mend."""
    async with own_stack() as stack:
        yield stack


@pytest.fixture
async def client(broken: LocalStack) -> AsyncIterator[AsyncClient]:
    """A user's client that tries nothing twice: it sees each failure."""
    async with AsyncClient(broken.grpc_address, token=broken.identity.mint("user"), retries=False) as client:
        yield client


async def until_it_answers(client: AsyncClient) -> None:
    async with asyncio.timeout(RECOVERY_S):
        while True:
            try:
                await client.settings.GetSettings(GetSettingsRequest())
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def until_json_answers(stack: LocalStack) -> None:
    token = stack.identity.mint("user")
    async with asyncio.timeout(RECOVERY_S):
        while True:
            answer = await asyncio.to_thread(http_json.call, "GET", f"{stack.base_url}/settings", token=token)
            if answer.status == 200:
                return
            assert answer.status == 503, answer
            await asyncio.sleep(0.05)


async def test_postgres_away_is_503_within_the_deadline_and_recovery_is_by_itself(
    broken: LocalStack, client: AsyncClient
) -> None:
    await until_it_answers(client)
    await broken.stop_postgres()
    try:
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(Unavailable) as error:
                await client.routing.Route(RouteRequest())
            assert error.value.reason == "UNAVAILABLE"
            assert time.monotonic() - started < DEADLINE_S
        player = Player(broken.base_url, broken.identity.mint, lambda _: None, {}, {}, Contract())
        for name in golden.NEED_NO_DATABASE:
            await asyncio.to_thread(player.play, name)
    finally:
        await broken.start_postgres()
    await until_it_answers(client)
    await until_json_answers(broken)


async def test_postgres_that_hangs_is_503_within_the_deadline(broken: LocalStack, client: AsyncClient) -> None:
    await until_it_answers(client)
    frozen = await postgres_pids(broken)
    for pid in frozen:
        signal_process(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        outcomes = await asyncio.gather(
            *(client.settings.GetSettings(GetSettingsRequest(), timeout=DEADLINE_S) for _ in range(40)),
            return_exceptions=True,
        )
        assert time.monotonic() - started < DEADLINE_S
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
    finally:
        for pid in frozen:
            signal_process(pid, signal.SIGCONT)
    await until_it_answers(client)


async def postgres_pids(stack: LocalStack) -> list[int]:
    connection = await asyncpg.connect(stack.database_url)
    backends = [row["pid"] for row in await connection.fetch("select pid from pg_stat_activity where pid is not null")]
    await connection.close()
    return [stack.postgres.server.pid, *backends]


def signal_process(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def test_nothing_acknowledged_is_lost_when_postgres_restarts_under_writers(broken: LocalStack) -> None:
    user = uuid.uuid4()
    acknowledged: set[str] = set()
    refused = 0
    stop = asyncio.Event()
    token = broken.identity.mint("service")
    async with AsyncClient(broken.grpc_address, token=token, retries=False) as service:
        await until_recorded(service)
        models = await service.models.ListModels(ListModelsRequest())
        model_id = next(model.model_id for model in models.models if model.model_name == "gpt-4o")

        async def write(writer: int) -> None:
            nonlocal refused
            number = 0
            while not stop.is_set():
                request_id = f"{writer}-{number}"
                request = RecordUsageRequest(
                    user_id=str(user), request_id=request_id, model_id=model_id, input_tokens=1000
                )
                try:
                    await service.usage.RecordUsage(request)
                except Unavailable:
                    refused += 1
                    await asyncio.sleep(0.02)
                else:
                    acknowledged.add(request_id)
                    number += 1

        async with asyncio.TaskGroup() as writers:
            for writer in range(20):
                writers.create_task(write(writer))
            await asyncio.sleep(0.5)
            before = len(acknowledged)
            await broken.stop_postgres()
            await broken.start_postgres()
            async with asyncio.timeout(RECOVERY_S):
                while len(acknowledged) < before + 200:
                    await asyncio.sleep(0.05)
            stop.set()
        usage = await service.usage.GetUsage(GetUsageRequest(user_id=str(user)))
    connection = await asyncpg.connect(broken.database_url)
    stored = {
        row["request_id"]
        for row in await connection.fetch("select request_id from llm_usage_logs where user_id = $1", user)
    }
    await connection.close()
    assert before > 0
    assert refused > 0
    assert acknowledged <= stored
    assert usage.total_requests == len(stored)
    assert usage.total_cost_usd == pytest.approx(len(stored) * 0.0025)


async def until_recorded(service: AsyncClient) -> None:
    async with asyncio.timeout(RECOVERY_S):
        while True:
            try:
                await service.models.ListModels(ListModelsRequest())
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_sigterm_during_200_calls_in_flight_answers_them_all(broken: LocalStack, client: AsyncClient) -> None:
    await until_it_answers(client)
    lock = await asyncpg.connect(broken.database_url)
    transaction = lock.transaction()
    await transaction.start()
    await lock.execute("lock table llm_usage_daily in access exclusive mode")
    # Each of these reads the locked table; those that got a connection wait in Postgres, the others for a connection.
    calls = [asyncio.create_task(client.usage.GetUsage(GetUsageRequest())) for _ in range(200)]
    async with asyncio.timeout(5):
        while await lock.fetchval("select count(*) from pg_locks where not granted") < 20:
            await asyncio.sleep(0.01)
    broken.server.signal(signal.SIGTERM)
    await asyncio.sleep(0.5)  # it has begun to refuse new calls by now
    await transaction.rollback()
    await lock.close()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    exit_code = await asyncio.wait_for(broken.server.wait(), DEADLINE_S)
    with pytest.raises(LlmrouterError):
        await client.usage.GetUsage(GetUsageRequest())
    await broken.start_server()
    assert exit_code == 0
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []


async def test_a_killed_server_is_503_and_a_new_one_is_found(broken: LocalStack, client: AsyncClient) -> None:
    await until_json_answers(broken)
    await broken.kill_server()
    token = broken.identity.mint("user")
    answer = await asyncio.to_thread(http_json.call, "GET", f"{broken.base_url}/settings", token=token)
    assert answer.status == 503
    assert answer.json["code"] == 14
    assert answer.headers["retry-after"] == "1"
    await broken.start_server()
    await until_json_answers(broken)
    await until_it_answers(client)
