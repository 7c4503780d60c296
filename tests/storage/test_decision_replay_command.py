"""`llmrouter decisions replay` as an operator runs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from decision_samples import House, decided, keep_four, keeping
from llmrouter_server.cli import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@pytest.fixture
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    """A database of the test's own: replay looks at all decisions there are."""
    async with keeping(await migrated_database()) as house:
        yield house


async def run(url: str, *arguments: str) -> Result:
    def call() -> Result:
        return CliRunner().invoke(main, ["decisions", "replay", *arguments], env={"DATABASE_URL": url})

    return await asyncio.to_thread(call)


async def test_the_command_says_that_none_differs(house: House) -> None:
    await keep_four(house)
    done = await run(house.url)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "4 decisions replayed, 0 differ\n", "")


async def test_the_command_tells_what_other_weights_would_change(house: House) -> None:
    await keep_four(house)
    done = await run(house.url, "--weights", "0,0,1", "--list")
    listed, said = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    assert listed[0][36:] == ": Local vLLM Qwen/Qwen2.5-32B-Instruct -> OpenRouter meta-llama/llama-3.1-405b"
    assert said == [
        "4 decisions replayed, 0 differ",
        "3 choices would change, by these sums:",
        "  cost +3.360300 US dollars, at the estimated tokens or a million each way",
        "  latency +2250 ms",
        "  quality rating +2.00",
    ]
    assert done.exit_code == 0


async def test_the_command_fails_when_one_differs_and_says_which(house: House) -> None:
    record, decision = decided(await house.catalog.load_snapshot())
    await house.keep((record, decision))
    await house.execute("update llm_decisions set outcome = '{}'")
    done = await run(house.url)
    assert (done.exit_code, done.stdout) == (1, "1 decisions replayed, 1 differ\n")
    assert done.stderr == f"differs: {record.id}\n"


async def test_the_command_says_whose_catalogue_is_gone(house: House) -> None:
    record, decision = decided(await house.catalog.load_snapshot())
    await house.keep((replace(record, snapshot_number=10**9), decision))
    done = await run(house.url)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "0 decisions replayed, 0 differ",
        "1 could not be replayed: their catalogue snapshot is gone",
    ]


async def test_the_command_looks_back_as_far_as_it_is_told(house: House) -> None:
    snapshot, now = await house.catalog.load_snapshot(), datetime.now(UTC)
    await house.keep(*(decided(snapshot, at=now - timedelta(hours=each)) for each in (0, 1, 47, 49)))
    for since, expected in {"30m": 1, "24h": 2, "2d": 3, "365d": 4}.items():
        done = await run(house.url, "--since", since)
        assert done.stdout == f"{expected} decisions replayed, 0 differ\n"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "llmrouter: DATABASE_URL is required and missing\n"),
        ("postgresql://somebody:hush@127.0.0.1:1/nothing", "llmrouter: the database cannot be reached\n"),
    ],
)
async def test_without_a_database_the_command_says_so_in_one_line(url: str, said: str) -> None:
    done = await run(url)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)


@pytest.mark.parametrize("weights", ["1", "0.5,0.5", "1,1,1", "a,b,c", "nan,0,1", "-1,1,1", "0.5,0.5,0.002"])
async def test_what_are_no_weights_is_a_mistake_of_usage(weights: str) -> None:
    done = await run("postgresql://127.0.0.1:1/nothing", f"--weights={weights}")
    assert (done.exit_code, done.stdout) == (2, "")
