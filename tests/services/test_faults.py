"""What a client sees when parts of the stack stop, hang or die under it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

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
from llmrouter_server.runtime.database import COMMAND_TIMEOUT_S
from llmrouter_server.runtime.local_ports import accepts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from llmrouter_server.runtime.local_stack import LocalStack

RECOVERY_S = 60
PATIENCE_S = 30
MOST_PLAYS = 3
FOR_REPORTS = 10
"""Connections to Postgres that reports may have, half of all, unless that is set otherwise."""


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
            with pytest.raises(Unavailable) as error:
                await client.routing.Route(RouteRequest(), timeout=PATIENCE_S)
            assert error.value.reason == "UNAVAILABLE"  # which the server tells within its own deadline
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
        outcomes = await asyncio.gather(
            *(outcome(client.settings.GetSettings(GetSettingsRequest(), timeout=PATIENCE_S)) for _ in range(40))
        )
        assert set(outcomes) == {"UNAVAILABLE"}  # which the server tells within its own deadline
    finally:
        for pid in frozen:
            signal_process(pid, signal.SIGCONT)
    await until_it_answers(client)


async def outcome(call: Awaitable[object]) -> str:
    """Return OK or the reason of an error: none when the server did not tell it."""
    try:
        await call
    except LlmrouterError as error:
        return error.reason
    return "OK"


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
            async with asyncio.timeout(RECOVERY_S):
                while len(acknowledged) < 20:
                    await asyncio.sleep(0.01)
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
    for _ in range(MOST_PLAYS):
        answers, waited_s = await answers_in_flight_at_sigterm(broken, client)
        assert set(answers) <= {"OK", "UNAVAILABLE"}  # whoever gets no connection in time is told so
        if waited_s < COMMAND_TIMEOUT_S:  # else the server gave up those that waited in Postgres
            break
    assert answers["OK"] >= FOR_REPORTS


async def answers_in_flight_at_sigterm(broken: LocalStack, client: AsyncClient) -> tuple[Counter[str], float]:
    """Return the answers of 200 calls, and how long Postgres kept those waiting that had got there."""
    await until_it_answers(client)
    lock = await asyncpg.connect(broken.database_url)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            transaction = lock.transaction()
            await transaction.start()
            await lock.execute("lock table llm_usage_daily in access exclusive mode")
            began = time.monotonic()
            # Each of these reads the locked table; those that got a connection wait in Postgres, the others for one.
            calls = [
                asyncio.create_task(outcome(client.usage.GetUsage(GetUsageRequest(), timeout=PATIENCE_S)))
                for _ in range(200)
            ]
            if await all_reports_wait(lock, calls):
                break
            await transaction.rollback()
            await asyncio.gather(*calls)
    await client.settings.GetSettings(GetSettingsRequest())  # it came after them: a server takes calls in turn
    broken.server.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        while await accepts(broken.ports.grpc):
            await asyncio.sleep(0.01)
    await transaction.rollback()
    waited_s = time.monotonic() - began
    await lock.close()
    answers = Counter(await asyncio.gather(*calls))
    exit_code = await asyncio.wait_for(broken.server.wait(), PATIENCE_S)
    with pytest.raises(LlmrouterError):
        await client.usage.GetUsage(GetUsageRequest())
    await broken.start_server()
    assert exit_code == 0
    return answers, waited_s


async def all_reports_wait(lock: Any, calls: list[asyncio.Task[str]]) -> bool:
    """Wait until all that reports may have wait in Postgres; False when a call has ended before."""
    while await lock.fetchval("select count(*) from pg_locks where not granted") < FOR_REPORTS:
        if any(call.done() for call in calls):
            return False
        await asyncio.sleep(0.01)
    return True


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
