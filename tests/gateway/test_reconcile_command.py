"""The command `reconcile`, as a function."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from gateway_samples import Books, Gateway, plan, row
from llmrouter_server.gateway.journal import Reconciled, reconcile_file
from llmrouter_server.runtime.command import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from llmrouter_server.gateway.plan import Plan

ZERO, USED = Decimal(0), Decimal("0.00235")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.writelines(lines)


def line(of: Plan) -> bytes:
    return json.dumps(row(of)).encode() + b"\n"


async def test_the_command_records_what_is_open_and_says_so(gateway: Gateway, path: Path, database_url: str) -> None:
    made, said = await gateway.begin(), []
    append(path, line(made), b"garbage\n")
    done = await reconcile_file(database_url, path, follow=False, say=said.append)
    assert done == Reconciled(lines=2, recorded=1, unreadable=1)
    assert said == ["1 recorded, 2 lines read, 1 of them unreadable"]
    assert await gateway.books(made.user_id) == Books(USED, ZERO, ZERO, USED, 0)
    await reconcile_file(database_url, path, follow=False, say=said.append)
    assert said[1:] == ["0 recorded, 0 lines read, 0 of them unreadable"]


async def test_the_command_follows_until_it_is_stopped(gateway: Gateway, path: Path, database_url: str) -> None:
    made, said = await gateway.begin(), []
    following = asyncio.create_task(reconcile_file(database_url, path, follow=True, say=said.append, interval_s=0.001))
    append(path, line(made))
    async with asyncio.timeout(20):
        while not said:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait({following})
    assert said == ["1 recorded, 1 lines read, 0 of them unreadable"]


async def test_sigterm_ends_it_well(gateway: Gateway, path: Path, database_url: str) -> None:
    """In a container it is process 1, which the kernel spares a signal that it does not handle."""
    append(path, line(await gateway.begin()))
    environment = os.environ | {"DATABASE_URL": database_url}
    command = (sys.executable, "-m", "llmrouter_server", "reconcile", "--follow", str(path))
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        async with asyncio.timeout(30):
            assert process.stdout is not None
            assert (await process.stdout.readline()).startswith(b"1 recorded")
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def test_the_command_says_in_one_sentence_what_it_cannot_do(
    path: Path, database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="there is no file"):
        await reconcile_file(database_url, path, follow=False, say=print)
    with pytest.raises(CommandError, match="the journal cannot be read"):
        await reconcile_file(database_url, tmp_path, follow=False, say=print)
    append(path, line(plan()))
    with pytest.raises(CommandError, match="the database does not answer"):
        await reconcile_file("postgresql://nobody@127.0.0.1:1/none", path, follow=False, say=print)
    with pytest.raises(CommandError, match="refuses the connection"):
        await reconcile_file(f"{database_url}_not", path, follow=False, say=print)
