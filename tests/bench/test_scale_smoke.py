"""The benchmark of scale with next to nothing: it runs, its answers are right, it can be reported."""

from __future__ import annotations

import itertools
import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bench.machine import machine
from bench.run import ROOT
from bench.scale_data import AGREE, loading, months_of_a_year
from bench.scale_recording import UNARY
from bench.scale_report import SECTIONS, markdown
from bench.scale_run import PARTS, Sizes
from bench.scale_usage import usage
from bench.scale_world import POSTGRES_SETTINGS, World
from conftest import make_open_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SMALL = Sizes(
    users=60,
    cached=20,
    steps=(20, 40),
    calls=5,
    providers=3,
    models=5,
    changes=1,
    few_rows=3_000,  # of which the heavy user has made 14 in the last 30 days, once in two million times none
    many_rows=6_000,
    usage_calls=2,
    rounds=1,
    seconds=0.3,
    starts=1,
    workers=(1,),
)


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    folder = make_open_folder()
    async with World(folder / "world") as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


async def test_every_part_is_measured_and_reported(world: World) -> None:
    about = machine(ROOT) | {"postgres": POSTGRES_SETTINGS}
    found = {
        name: {"about": about, "figures": await measure(world, SMALL, lambda _: None)}
        for name, measure in PARTS.items()
    }
    assert found.keys() == SECTIONS.keys()
    assert all(value > 0 for value in found["recording"]["figures"][f"{UNARY}, 1 workers"].values())
    found["recording"]["figures"][f"{UNARY}, 2 workers"] = found["recording"]["figures"][f"{UNARY}, 1 workers"]
    performance = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))["summary"]["medians"]
    text = markdown(found, performance)
    assert "| GetUsage, 30 days, heavy user | " in text
    assert "## On paper" in text
    assert str(ROOT) not in text
    await a_sum_that_is_wrong_is_found(world)


async def a_sum_that_is_wrong_is_found(world: World) -> None:
    async with loading(world, "few_rows") as connection:
        until = await connection.fetchval("select loaded_at from bench_loaded where part = 'usage'")
        month = months_of_a_year(SMALL.few_rows, until)[-2]
        of_month = (month.begins, month.ends, month.rows, month.first, month.ends.date())
        assert await connection.fetchval(AGREE, *of_month)
        await connection.execute("update llm_usage_daily set requests = requests + 1")
        assert not await connection.fetchval(AGREE, *of_month)
    with pytest.raises(RuntimeError, match="the records"):
        await usage(world, {"few": "few_rows"}, rounds=1, calls=1)


def test_a_years_rows_are_spread_over_its_months_without_a_gap() -> None:
    until = datetime(2026, 3, 10, 12, tzinfo=UTC)
    months = months_of_a_year(1_000_003, until)
    assert sum(month.rows for month in months) == 1_000_003
    assert months[0].begins == datetime(2025, 3, 11, tzinfo=UTC)
    assert months[-1].ends == until
    assert all(before.ends == after.begins for before, after in itertools.pairwise(months))
    assert all(month.ends - month.begins <= timedelta(days=31) for month in months)
