"""The benchmark itself, for a moment: it runs, its answers are right, and it can be reported. Nothing is timed."""

from __future__ import annotations

import asyncio

import pytest

from bench import answers, http_load, mock_provider
from bench.machine import machine
from bench.places import Cores, _end, _python, port_of
from bench.report import markdown, summary
from bench.run import ROOT, measure
from bench.server_parts import Statement, samples_of
from bench.server_parts import markdown as server_markdown

ANSWERED = (
    "saturated ours", "saturated plain", "calm ours", "calm plain", "decisions", "route", "route, new", "echo",
    "route in JSON", "route behind a plain Envoy in JSON", "echo in JSON", "route, grown", "route, new, grown",
    "echo, grown", "echo, same set-up", "echo, same set-up, grown", "echo, same set-up in JSON",
    "echo, same intake", "echo, same intake, grown", "echo, same intake in JSON",
    "echo, same set-up, behind our Envoy in JSON",
)  # fmt: skip


async def test_a_short_benchmark_measures_everything_and_finds_all_answers_right() -> None:
    [measured] = await measure(1, 0.3, models=60)
    assert all(measured[what]["answers"] > 0 for what in ANSWERED)
    # In so short a time Postgres may use no more than it does when nobody asks for anything, which is taken off.
    figures = {(what, name): value for what in ANSWERED for name, value in measured[what].items()}
    assert [each for each, value in figures.items() if value <= 0 and each[1] != "postgres_us"] == []
    assert measured["streams ours"]["chunks_per_s"] > 0
    assert measured["models"] == {"at first": 24, "grown": 60}
    about = machine(ROOT) | {
        "rounds": 1,
        "seconds": 0.3,
        "cores": Cores.of_this_machine().told,
    }
    found = {"about": about, "summary": summary([measured])}
    text = markdown(found, found)
    assert "| +0% |" in text
    assert "| ours, 32 in flight | " in text
    assert str(ROOT) not in text


async def test_a_load_refuses_an_answer_that_is_not_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = await _python("bench.mock_provider")
    load = http_load.Load(port=await port_of(provider), tokens=["t"], connections=2, seconds=0.1)
    try:
        good = await http_load.ask(load)
        assert isinstance(good["answers"], int)
        assert good["answers"] > 0
        monkeypatch.setattr(answers, "ANSWER", mock_provider.ANSWER[:-1] + b"]")
        with pytest.raises(ValueError, match="not the right answer"):
            async with asyncio.timeout(20):
                await http_load.ask(load)
    finally:
        await _end(provider)


STACKS = """\
thread (0x1): MainThread;run (asyncio/runners.py:1);_run (uvloop/loop.pyx:2);decide (llmrouter_server/gateway/decision.py:3) 5
thread (0x1): MainThread;run (asyncio/runners.py:1);open (llmrouter_server/gateway/store.py:4);fetch (asyncpg/connection.py:9) 3
thread (0x1): MainThread;run (asyncio/runners.py:1) 2
process 7;thread (0x2): "reader";read (llmrouter_server/gateway/chat.py:4) 9
"""  # noqa: E501 - as the sampler writes them


def test_a_sample_counts_for_the_innermost_file_or_library_of_the_thread_that_runs_the_loop() -> None:
    assert samples_of(STACKS) == {"gateway/decision.py": 5, "asyncpg": 3, "event loop": 2}


def test_what_the_server_costs_is_told_by_part_the_dearest_first() -> None:
    found = {"echo": {"event loop": 190.0}, "chat": {"event loop": 400.0, "asyncpg": 900.4, "app.py": 0.2}}
    about = machine(ROOT)
    statements = [Statement("select a || b", True, 0.5, 7.4), Statement("select 1", False, 2.0, 0.1)]
    told = server_markdown(found, statements, about, 2).split("\n")
    head = told.index("| µs a call | echo | chat |")
    assert told[head + 2 : head + 6] == [
        "| all | 190 | 1,301 |", "| asyncpg |  | 900 |", "| event loop | 190 | 400 |", "",
    ]  # fmt: skip
    assert told[-2:] == ["| → `select a \\|\\| b` | 0.500 | 7 |", ""]
