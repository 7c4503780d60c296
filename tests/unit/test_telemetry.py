"""What operators read: a log that nobody can break or forge, and metrics that follow the rules and add up."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.telemetry import LONGEST_LINE, MULTIPROCESS_DIR, JsonLines

if TYPE_CHECKING:
    from pathlib import Path

OWN = {"ts", "level", "logger", "message"}
METRICS = {name: each for name, each in vars(telemetry).items() if isinstance(each, MetricWrapperBase)}

HOSTILE = '\n{"level": "info", "message": "forged"}\r\n\x1b[2J\x1b[31mred\x07\x00\x7f\x85\u2028\u2029\ud800"\\'
FIELD_NAMES = ("request_id", "method", "user_agent", "error", "reason", "address")

texts = st.text() | st.text(st.characters()) | st.sampled_from([HOSTILE, "\n", "\r\n", "\x1b[0m", "\ud800", '"', ""])
long_texts = st.builds(lambda text, times: text * times, texts, st.sampled_from([1, 100, 5000]))
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | long_texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.integers() | st.tuples(st.integers()), inner, max_size=4)
    ),
    max_leaves=8,
)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def a_cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def line_of(
    message: object = "call", *, arguments: object = (), raised: BaseException | None = None, **extra: Any
) -> str:
    record = logging.makeLogRecord(
        {
            "name": "llmrouter_server.access",
            "msg": message,
            "args": arguments,
            "levelname": "INFO",
            "levelno": logging.INFO,
            "exc_info": None if raised is None else (type(raised), raised, raised.__traceback__),
            **extra,
        }
    )
    return JsonLines().format(record)


def with_field(name: str, text: str) -> dict[str, Any]:
    return {} if name == "message" else {name: text}  # logging refuses that one itself


def parse(line: str) -> dict[str, Any]:
    """Read a line as the strictest reader does; assert that it is one line, plain ASCII and not too long."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert 0 < len(line) <= LONGEST_LINE
    assert re.fullmatch(r"[\x20-\x7e]+", line)
    pairs: list[list[str]] = []

    def keep(items: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append([name for name, _ in items])
        return dict(items)

    read = json.loads(line, parse_constant=refuse, object_pairs_hook=keep)
    assert isinstance(read, dict)
    assert len(pairs[-1]) == len(set(pairs[-1])), "a field given twice"
    return read


# --- the log ---


@given(st.dictionaries(st.sampled_from(FIELD_NAMES), values), long_texts)
@example(dict.fromkeys(FIELD_NAMES, "\U0001f600" * 100_000), HOSTILE)
def test_whatever_is_logged_is_one_line_that_can_be_parsed_and_is_not_too_long(
    extra: dict[str, Any], message: str
) -> None:
    read = parse(line_of(message.replace("%", "%%"), **extra))
    assert set(read) == OWN | set(extra)
    assert read["level"] == "info"
    assert read["logger"] == "llmrouter_server.access"


NOT_JSON = {
    "a cycle": a_cycle(),
    "unspeakable": Unspeakable(),
    "unspeakable inside": [Unspeakable()],
    "a huge number": 10**5000,
    "a key that is no text": {(1, 2): 3},
    "no number": math.nan,
    "infinities": [math.inf, -math.inf],
    "bytes": b"\xff",
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_what_json_cannot_say_is_said_as_text(what: str) -> None:
    read = parse(line_of("call", error=NOT_JSON[what], request_id="r-1"))
    assert isinstance(read["error"], str)
    assert (read["message"], read["request_id"]) == ("call", "r-1")


@given(st.sampled_from(sorted(OWN | {"exception"})), texts)
def test_no_field_takes_the_place_of_the_lines_own(name: str, text: str) -> None:
    read = parse(line_of("call", **with_field(name, text)))
    assert (read["level"], read["logger"], read["message"]) == ("info", "llmrouter_server.access", "call")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", read["ts"])


@given(texts)
def test_short_text_comes_through_unchanged(text: str) -> None:
    line = line_of("call", address=text)
    assert parse(line)["address"] == text


@given(st.integers(200, 400), st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=20))
def test_even_very_many_fields_make_one_line_that_can_be_parsed(number: int, extra: list[tuple[str, str]]) -> None:
    fields = enumerate(islice(cycle(extra), number))
    named: dict[str, Any] = {f"field {place} {name}" * 20: value for place, (name, value) in fields}
    read = parse(line_of(**named))
    assert set(read) >= OWN
    assert read["message"] == "call"


def test_a_line_that_is_too_long_keeps_beginning_and_end_of_each_long_field_and_the_short_ones_whole() -> None:
    read = parse(line_of("call", request_id="r-1", error="begin" + "x" * LONGEST_LINE + "end", code=7))
    assert (read["request_id"], read["code"]) == ("r-1", "7")
    assert read["error"].startswith("beginx")
    assert read["error"].endswith("xend")
    assert re.search(r" \.\.\.\d+ characters\.\.\. ", read["error"])


def test_a_traceback_that_is_too_long_keeps_its_end_which_says_what_happened() -> None:
    def deeper(depth: int) -> None:
        if depth:
            deeper(depth - 1)
            return
        raise ValueError("x" * LONGEST_LINE + "the end of it")

    with pytest.raises(ValueError, match="the end of it") as raised:
        deeper(50)
    read = parse(line_of("unhandled exception", raised=raised.value))
    assert read["exception"].startswith("Traceback (most recent call last):\n")
    assert read["exception"].endswith("the end of it")


@pytest.mark.parametrize(
    ("message", "arguments"),
    [("%s and %s", ("one",)), ("%d", ("x",)), (Unspeakable(), ()), ("%s", (Unspeakable(),)), ("100 %", (1,))],
)
def test_a_message_that_cannot_be_made_is_no_reason_to_lose_the_line(message: object, arguments: object) -> None:
    assert parse(line_of(message, arguments=arguments, request_id="r-1"))["request_id"] == "r-1"


# --- the metrics ---


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_named_and_explained_as_prometheus_asks(name: str) -> None:
    metric = METRICS[name]
    (family,) = metric.describe()
    assert re.fullmatch(r"llmrouter_[a-z]+(_[a-z]+)*", family.name)
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_milliseconds", "_ms"))
    assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation)
    assert set(metric._labelnames) <= {
        *["method", "code", "state", "queue", "cache", "result", "provider", "model", "power_level", "flag", "reason"],
        *["status", "outcome", "purpose", "payer", "rule"],
    }
    if "in seconds" in family.documentation:
        assert family.name.endswith("_seconds")


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if isinstance(metric, Gauge)])
def test_a_gauge_of_several_workers_is_of_those_that_live(name: str) -> None:
    gauge = METRICS[name]
    assert isinstance(gauge, Gauge)
    assert gauge._multiprocess_mode in {"livesum", "livemin", "livemax"}


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if isinstance(metric, Histogram)])
def test_a_histograms_buckets_reach_from_what_is_usual_to_what_is_the_most(name: str) -> None:
    histogram = METRICS[name]
    assert isinstance(histogram, Histogram)
    bounds = histogram._upper_bounds[:-1]
    assert list(bounds) == sorted(set(bounds))
    if name == "BATCH_SIZE":
        assert (bounds[0], bounds[-1]) == (1, 1000)
    else:
        assert bounds[0] <= 0.00025
        assert bounds[-1] >= 10


def test_a_histograms_child_is_found_once_and_is_its_own() -> None:
    timed = Histogram("test_timed", "Test.", ["a"], registry=None)
    assert telemetry.histogram(timed, "x") is telemetry.histogram(timed, "x") is timed.labels("x")


def counted(registry: CollectorRegistry, label: str) -> float | None:
    return registry.get_sample_value("test_counted_total", {"a": label})


async def test_what_is_counted_is_told_together_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "GATHER_S", 0.0)
    registry = CollectorRegistry()
    metric = Counter("test_counted", "Test.", ["a"], registry=registry)
    telemetry.counter(metric, "x").inc()
    telemetry.counter(metric, "x").inc(3)
    telemetry.count(((metric.labels("x"), 2), (metric.labels("y"), 5)))
    assert counted(registry, "x") == 0
    async with asyncio.timeout(10):
        while not counted(registry, "x"):
            await asyncio.sleep(0)
    assert (counted(registry, "x"), counted(registry, "y")) == (6, 5)


async def test_it_is_told_for_how_long_the_loop_answered_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "GATHER_S", 0.0)
    before = REGISTRY.get_sample_value("llmrouter_loop_late_seconds_sum") or 0
    telemetry.counter(telemetry.CACHE, "test", "hit").inc()
    time.sleep(0.2)  # noqa: ASYNC251 - it holds the loop up
    async with asyncio.timeout(10):
        while (REGISTRY.get_sample_value("llmrouter_loop_late_seconds_sum") or 0) < before + 0.19:
            await asyncio.sleep(0)


async def test_whoever_reads_the_metrics_misses_nothing() -> None:
    before = REGISTRY.get_sample_value("llmrouter_cache_reads_total", {"cache": "test", "result": "hit"}) or 0
    telemetry.counter(telemetry.CACHE, "test", "hit").inc()
    assert REGISTRY.get_sample_value("llmrouter_cache_reads_total", {"cache": "test", "result": "hit"}) == before + 1


def test_a_thread_without_a_loop_counts_at_once() -> None:
    registry = CollectorRegistry()
    telemetry.counter(Counter("test_counted", "Test.", ["a"], registry=registry), "x").inc(2)
    assert counted(registry, "x") == 2


WORKER = """
import sys
from llmrouter_server.runtime import telemetry
up, live, used, limit, entries, snapshot, status = sys.argv[1:]
telemetry.DATABASE_UP.set(int(up))
telemetry.NOTIFICATIONS_LIVE.set(int(live))
telemetry.POOL_CONNECTIONS.labels("used").set(int(used))
telemetry.POOL_LIMIT.set(int(limit))
telemetry.CACHED.labels("users").set(int(entries))
telemetry.CATALOG_SNAPSHOT.set(int(snapshot))
for each in ("HEALTHY", "UNHEALTHY"):
    telemetry.PROVIDER_HEALTH.labels("Groq", each).set(int(each == status))
telemetry.counter(telemetry.REQUESTS, "m", "OK").inc(10)
telemetry.histogram(telemetry.SECONDS, "m").observe(0.0003)
import os
print(os.getpid())
"""
SUPERVISOR = """
import os, sys
from llmrouter_server.runtime import telemetry
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
os.environ[telemetry.MULTIPROCESS_DIR] = sys.argv[1]  # after the import, so that it has no gauges there itself
for pid in sys.argv[2:]:
    telemetry.forget_process(int(pid))
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


def run(program: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def exposed(folder: Path, *dead: str) -> dict[str, float]:
    told = run(SUPERVISOR, str(folder), *dead)
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
    }


def test_workers_add_up_the_worst_of_them_shows_and_a_dead_one_leaves_only_its_counts(tmp_path: Path) -> None:
    shared = {MULTIPROCESS_DIR: str(tmp_path)}
    run(WORKER, "1", "1", "3", "20", "100", "7", "HEALTHY", **shared)
    dead = run(WORKER, "0", "0", "4", "20", "50", "6", "UNHEALTHY", **shared).strip()
    both, one = exposed(tmp_path), exposed(tmp_path, dead)
    gauges = {
        "llmrouter_database_up[]": (0, 1),
        "llmrouter_notifications_live[]": (0, 1),
        "llmrouter_pool_connections['used']": (7, 3),
        "llmrouter_pool_connections_limit[]": (40, 20),
        "llmrouter_cache_entries['users']": (150, 100),
        "llmrouter_catalog_snapshot[]": (6, 7),
        "llmrouter_provider_health['Groq', 'HEALTHY']": (1, 1),
        "llmrouter_provider_health['Groq', 'UNHEALTHY']": (1, 0),
    }
    assert {name: (both[name], one[name]) for name in gauges} == gauges
    counts = {
        "llmrouter_requests_total['OK', 'm']": 20,
        "llmrouter_request_seconds_bucket['0.00025', 'm']": 0,
        "llmrouter_request_seconds_bucket['0.0005', 'm']": 2,
    }
    for shown in (both, one):
        assert {name: shown[name] for name in counts} == counts
