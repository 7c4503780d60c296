"""The benchmark beside other gateways, for a moment and without them: it runs, and tells who is missing and why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bench import answers
from bench.machine import machine
from bench.mock_provider import ANSWER, stream_of
from bench.rivals import gateways
from bench.rivals.report import markdown
from bench.rivals.rival import Launch, Target, UnavailableError
from bench.rivals.run import RIVALS, ROOT, measure, report_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rivals.rival import Say

COMPARED = (gateways.OURS, gateways.PLAIN, gateways.DIRECT)


class Missing:
    name, version, on, off, asks_who = "LiteLLM proxy", "1", "nothing", "nothing", False

    def install(self, cache: Path, say: Say) -> Path:
        raise UnavailableError(f"nowhere in {cache.name}, {say}")

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        raise AssertionError((installed, home, port, provider_port))


class Broken(Missing):
    name = "TensorZero"

    def install(self, cache: Path, say: Say) -> Path:
        say("installing ...")
        return cache

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        program = f"import sys; sys.exit('error: it has no {installed.name} {home.is_dir()} {provider_port > 0}')"
        command = [sys.executable, "-c", program]
        return Launch(command=command, env={"PATH": os.environ["PATH"]}, target=Target(port=port))


async def test_ours_is_measured_and_rivals_that_cannot_be_had_or_started_are_told_of(tmp_path: Path) -> None:
    rivals = [Missing(), Broken()]
    done = await measure(rivals, 1, 0.2, cache=tmp_path / "cache")
    [measured] = done.rounds
    for name in COMPARED:
        assert measured["saturated"][name]["answers"] > 0
        assert measured["calm"][name]["p99_ms"] > 0
        assert measured["streams"][name]["chunks_per_s"] > 0
    assert done.start_s[gateways.OURS] > 0
    about = machine(ROOT) | {"rounds": 1, "seconds": 0.2, "cores": "shared"}
    text = markdown(report_of(about, rivals, done))
    assert "LiteLLM proxy 1: not installed: nowhere in cache" in text
    assert "TensorZero 1: not started: it ended while it started; it wrote: error: it has no cache True True" in text
    assert "| requests a second, ours / LiteLLM | not measured: no LiteLLM proxy | | | at least 20 |" in text
    assert "| CPU a request, ours / plain Envoy | not" not in text
    assert str(tmp_path) not in text


def test_each_rival_has_a_locked_version() -> None:
    assert len({rival.name for rival in RIVALS}) == len(RIVALS)
    assert all(rival.version.lstrip("v")[0].isdigit() for rival in RIVALS)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [(b"lazy", b"idle"), (b'"stop"', b'"length"'), (b'"completion_tokens":40', b'"completion_tokens":41')],
)
def test_an_answer_that_says_something_else_is_not_right(was: bytes, becomes: bytes) -> None:
    assert answers.means_the_same(ANSWER.replace(b'"model":"bench-model"', b'"model":"auto"'))
    assert was in ANSWER
    assert not answers.means_the_same(ANSWER.replace(was, becomes, 1))


def test_a_stream_that_lacks_a_chunk_its_tokens_or_its_end_is_not_right() -> None:
    stream = stream_of(3)
    assert answers.streams_the_same(stream.replace(b"bench-model", b"auto"), 3)
    assert not answers.streams_the_same(stream, 4)
    assert not answers.streams_the_same(stream.removesuffix(answers.END), 3)
    assert not answers.streams_the_same(stream.replace(b'"completion_tokens":40', b'"completion_tokens":0'), 3)
