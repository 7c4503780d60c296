"""An export that breaks off in the middle says so, to a client of plain HTTP too."""

from __future__ import annotations

import asyncio
import csv
import io
import signal
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

import http_json
from llmrouter_server.usage.export import HEADER, INCOMPLETE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from llmrouter_server.runtime.local_stack import LocalStack

ROWS = 10_000
PATIENCE_S = 30

# As CSV it is over 40 MB: more than Envoy and the connections hold for a client that does not read.
FILL = """
insert into llm_usage_logs (
    id, user_id, provider_id, model_id, request_id, power_level, payer, input_tokens, output_tokens, cost_usd, status,
    error_message, created_at
)
select gen_random_uuid(), $1, m.provider_id, m.id, n::text, m.power_level, 'PLATFORM', 1, 1, 0, 'error',
    repeat(U&'\\+01F600', 1000), date_trunc('day', now(), 'UTC') + n * interval '1 microsecond'
from llm_models m cross join generate_series(1, $2) n
where m.model_name = 'gpt-4o'"""


@pytest.fixture(scope="module")
async def broken(own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]]) -> AsyncIterator[LocalStack]:
    """A stack that the tests of this file break and mend. Its server leaves before a query runs out of time."""
    async with own_stack(server_env={"DRAIN_TIMEOUT_SECONDS": "3"}) as stack:
        yield stack


class BrokenOffError(Exception):
    pass


class Export:
    """An export whose client has read its beginning and nothing more."""

    def __init__(self, begun: bytes, reader: asyncio.StreamReader) -> None:
        self._begun, self._reader = begun, reader

    async def rest(self) -> list[list[str]]:
        """Read on and return all rows; BrokenOffError when the answer has no last chunk."""
        async with asyncio.timeout(PATIENCE_S):
            answer = self._begun + await self._reader.read()
        body, chunks = io.BytesIO(answer.partition(b"\r\n\r\n")[2]), []
        while line := body.readline().strip():
            chunks.append(body.read(int(line, 16)))
            body.readline()
        if not answer.endswith(b"\r\n0\r\n\r\n"):
            raise BrokenOffError
        return list(csv.reader(io.StringIO(b"".join(chunks).decode(), newline="")))


@asynccontextmanager
async def exporting(stack: LocalStack) -> AsyncIterator[Export]:
    """Begin an export of more rows than fit on the way."""
    user = uuid.uuid4()
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(FILL, user, ROWS)
    await connection.close()
    token = stack.identity.mint("user", user)
    head = f"GET /api/v2/llm/usage/export HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}"
    async with asyncio.timeout(PATIENCE_S):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.http)
            writer.write(f"{head}\r\n\r\n".encode())
            begun = await reader.readuntil(b"\r\n\r\n")
            if not begun.startswith(b"HTTP/1.1 503 "):  # Envoy's view of a server is a second old
                break
            writer.transport.abort()
            await asyncio.sleep(0.1)
    try:
        yield Export(begun + await reader.readline(), reader)
    finally:
        writer.transport.abort()


async def until_it_answers(stack: LocalStack) -> None:
    """Wait until what was stopped and started again is found."""
    token = stack.identity.mint("user")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await asyncio.to_thread(http_json.call, "GET", f"{stack.base_url}/settings", token=token)
            if answer.status == 200:
                return
            await asyncio.sleep(0.05)


def assert_incomplete(rows: list[list[str]]) -> None:
    header, *records, last = rows
    assert tuple(header) == HEADER
    assert 0 < len(records) < ROWS
    assert {len(record) for record in records} == {len(HEADER)}
    assert tuple(last) == INCOMPLETE


async def test_without_a_fault_it_is_whole(broken: LocalStack) -> None:
    async with exporting(broken) as export:
        rows = await export.rest()
    assert [row[2] for row in rows] == ["request_id", *map(str, range(ROWS, 0, -1))]


async def test_postgres_away(broken: LocalStack) -> None:
    async with exporting(broken) as export:
        await broken.stop_postgres()
        try:
            rows = await export.rest()
        finally:
            await broken.start_postgres()
            await until_it_answers(broken)
    assert_incomplete(rows)


async def test_a_server_that_leaves_while_it_waits_for_postgres(broken: LocalStack) -> None:
    async with exporting(broken) as export:
        lock = await asyncpg.connect(broken.database_url)
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("lock table llm_usage_logs in access exclusive mode")
        broken.server.signal(signal.SIGTERM)
        try:
            rows = await export.rest()
        finally:
            await transaction.rollback()
            await lock.close()
            exit_code = await asyncio.wait_for(broken.server.wait(), PATIENCE_S)
            await broken.start_server()
            await until_it_answers(broken)
    assert exit_code == 0
    assert_incomplete(rows)


async def test_a_server_that_dies_breaks_the_connection_off(broken: LocalStack) -> None:
    async with exporting(broken) as export:
        await broken.kill_server()
        try:
            with pytest.raises(BrokenOffError):
                await export.rest()
        finally:
            await broken.start_server()
            await until_it_answers(broken)
