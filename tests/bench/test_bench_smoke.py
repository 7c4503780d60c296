"""The benchmark itself, for a moment: it runs, its answers are right, and it can be reported. Nothing is timed."""

from __future__ import annotations

import asyncio

import pytest

from bench import answers, http_load, mock_provider
from bench.machine import machine
from bench.places import Cores, _end, _python, port_of
from bench.report import markdown, summary
from bench.run import ROOT, measure

ANSWERED = (
    "saturated ours", "saturated plain", "calm ours", "calm plain", "decisions", "route", "route, new", "echo",
    "route in JSON", "echo in JSON", "route, grown", "route, new, grown", "echo, grown",
)  # fmt: skip


async def test_a_short_benchmark_measures_everything_and_finds_all_answers_right() -> None:
    [measured] = await measure(1, 0.3, models=60)
    assert all(measured[what]["answers"] > 0 for what in ANSWERED)
    assert all(value > 0 for what in ANSWERED for value in measured[what].values())
    assert measured["streams ours"]["chunks_per_s"] > 0
    assert measured["models"] == {"at first": 24, "grown": 60}
    about = machine(ROOT) | {
        "rounds": 1,
        "seconds": 0.3,
        "cores": Cores.of_this_machine().told,
    }
    text = markdown({"about": about, "summary": summary([measured])})
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
