"""What the operator sees: logs as JSON lines, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import sys
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import prometheus_client
from prometheus_client import multiprocess
from prometheus_client.registry import Collector

from llmrouter_server.runtime.call_lines import LOGGER, Beside, Call, CallLines, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
Increments: TypeAlias = tuple[tuple[prometheus_client.Counter, int], ...]

GATHER_S = 0.05
"""How long what is told of calls is gathered, and then told together: what a crash of the process may cost."""
QUICK_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client shares counts between processes; `serve --workers` sets it for its own."""
_IS_SHARED = MULTIPROCESS_DIR in os.environ
"""Then metrics are told at once: what a worker has counted is in a file, and outlives it however it ends."""

_access = logging.getLogger(LOGGER)
_counted: deque[Increments] = deque()
_ended: deque[Call] = deque()
_unwritten: deque[Call] = deque()
_timer_of: asyncio.AbstractEventLoop | None = None


class _Untold(Collector):
    """The first that Prometheus reads: nothing that was counted is missing in what it reads next."""

    def describe(self) -> Iterable[prometheus_client.Metric]:
        return ()

    def collect(self) -> Iterable[prometheus_client.Metric]:
        tell()
        return ()


prometheus_client.REGISTRY.register(_Untold())

# Every label has a bounded set of values: it is an RPC, a gRPC code, the name of a part of the server, or of the
# catalogue, which admins write. Gauges of several workers are of those that live: added up, or the worst of them.
REQUESTS = prometheus_client.Counter(
    "llmrouter_requests", "Calls that have ended, by RPC and gRPC code.", ["method", "code"]
)
SECONDS = prometheus_client.Histogram(
    "llmrouter_request_seconds",
    "Time to answer a call, in seconds, by RPC; of a streamed answer, to the end of the stream.",
    ["method"],
    buckets=(*QUICK_SECONDS[1:], 30, 60, 300),
)
DATABASE_UP = prometheus_client.Gauge(
    "llmrouter_database_up", "1 while the database answers, else 0.", multiprocess_mode="livemin"
)
NOTIFICATIONS_LIVE = prometheus_client.Gauge(
    "llmrouter_notifications_live",
    "1 while changes are heard of at once, else 0: then every decision reads the database.",
    multiprocess_mode="livemin",
)
POOL_CONNECTIONS = prometheus_client.Gauge(
    "llmrouter_pool_connections",
    "Connections to Postgres in the pool, by state (idle, used).",
    ["state"],
    multiprocess_mode="livesum",
)
POOL_LIMIT = prometheus_client.Gauge(
    "llmrouter_pool_connections_limit",
    "Most connections to Postgres that the pool may hold.",
    multiprocess_mode="livesum",
)
POOL_WAIT_SECONDS = prometheus_client.Histogram(
    "llmrouter_pool_wait_seconds",
    "Time to get a connection of the pool, in seconds, also when none was got.",
    buckets=QUICK_SECONDS,
)
LOOP_LATE_SECONDS = prometheus_client.Histogram(
    "llmrouter_loop_late_seconds",
    "How late a timer of the event loop was, in seconds, one for the calls of each moment: for so long nothing else "
    "was answered.",
    buckets=QUICK_SECONDS,
)
BATCH_SIZE = prometheus_client.Histogram(
    "llmrouter_batch_size", "Items written together, by queue.", ["queue"], buckets=SIZES
)
QUEUE_SECONDS = prometheus_client.Histogram(
    "llmrouter_queue_seconds",
    "Age of the oldest item of a batch when it was taken to be written, in seconds, by queue.",
    ["queue"],
    buckets=QUICK_SECONDS,
)
DROPPED = prometheus_client.Counter(
    "llmrouter_dropped", "Items that were given up because their queue was full or stayed unwritten.", ["queue"]
)
CACHE = prometheus_client.Counter(
    "llmrouter_cache_reads", "Reads of what is kept in memory, by cache and result (hit, miss).", ["cache", "result"]
)
CACHED = prometheus_client.Gauge(
    "llmrouter_cache_entries", "Entries kept in memory, by cache.", ["cache"], multiprocess_mode="livesum"
)
DECISIONS = prometheus_client.Counter(
    "llmrouter_decisions",
    "Routing decisions, by the model chosen and the power level.",
    ["provider", "model", "power_level"],
)
DECISIONS_FLAGGED = prometheus_client.Counter(
    "llmrouter_decisions_flagged",
    "Routing decisions that were degraded (no healthy provider was left) or downgraded (the budget was spent).",
    ["flag"],
)
for _flag in ("degraded", "downgraded"):
    DECISIONS_FLAGGED.labels(_flag)  # told as 0 from the start: a counter that begins at 1 has not increased
EXCLUSIONS = prometheus_client.Counter(
    "llmrouter_exclusions", "Models excluded from routing decisions, by reason.", ["reason"]
)
RULES = prometheus_client.Counter(
    "llmrouter_rules",
    "Routing rules, by what came of them: matched a request, or failed to be evaluated.",
    ["rule", "outcome"],
)
PROVIDER_HEALTH = prometheus_client.Gauge(
    "llmrouter_provider_health",
    "1 for the status that a provider has, 0 for the others; where workers do not agree, 1 for each one's.",
    ["provider", "status"],
    multiprocess_mode="livemax",
)
ATTEMPTS = prometheus_client.Counter(
    "llmrouter_attempts",
    "Attempts at providers, by provider and outcome (success, provider_fault, neutral).",
    ["provider", "outcome"],
)
KEY_READS = prometheus_client.Counter(
    "llmrouter_key_reads", "Provider keys decrypted for use, by purpose and payer.", ["purpose", "payer"]
)
CATALOG_SNAPSHOT = prometheus_client.Gauge(
    "llmrouter_catalog_snapshot",
    "Number of the catalogue snapshot in memory, of the worker that is furthest behind.",
    multiprocess_mode="livemin",
)


class Tally:
    """Counts for a tenth of what the counter itself takes, which is told of it a moment later."""

    __slots__ = ("_one", "child")

    def __init__(self, child: prometheus_client.Counter) -> None:
        self.child = child
        self._one = ((child, 1),)

    def inc(self, number: int = 1) -> None:
        count(self._one if number == 1 else ((self.child, number),))


def count(increments: Increments) -> None:
    """Add to several counters at once."""
    _counted.append(increments)
    _tell_soon()


@functools.cache
def counter(metric: prometheus_client.Counter, *labels: str) -> Tally:
    """Return the child of a counter, for code that runs with every call."""
    return Tally(metric.labels(*labels))


def ended(call: Call) -> None:
    """Log and count a call that is over."""
    _ended.append(call)
    _unwritten.append(call)
    _tell_soon()


# Finding the child of a histogram by its labels takes twice as long as observing, so each is found once.
histogram: Callable[..., prometheus_client.Histogram] = functools.cache(prometheus_client.Histogram.labels)
"""`histogram(METRIC, *labels)`: the child of a histogram, for code that runs with every call."""


def tell() -> None:
    """Bring the metrics up to date and write the lines. Any thread may: each item is taken once."""
    _tell_metrics()
    calls = tuple(_taken(_unwritten))
    if calls and _access.isEnabledFor(logging.INFO):
        _access.handle(CallLines(calls))


def _tell_metrics() -> None:
    for increments, times in Counter(_taken(_counted)).items():
        for child, number in increments:
            child.inc(number * times)
    calls = tuple(_taken(_ended))
    for (method, code), number in Counter((call.method, call.code) for call in calls).items():
        REQUESTS.labels(method, code).inc(number)
    for call in calls:
        histogram(SECONDS, call.method).observe(call.seconds)


def _taken(items: deque[T]) -> Iterable[T]:
    while True:
        try:
            yield items.popleft()
        except IndexError:
            return


def _tell_soon() -> None:
    global _timer_of  # noqa: PLW0603 - the metrics are the process's, and so is this
    if _IS_SHARED:
        _tell_metrics()
    if _timer_of is not None and _timer_of.is_running():
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another thread
        tell()
        return
    _timer_of = loop
    loop.call_later(GATHER_S, _tell_in_time, loop.time() + GATHER_S)


def _tell_in_time(due: float) -> None:
    global _timer_of  # noqa: PLW0603
    if _timer_of is not None:
        LOOP_LATE_SECONDS.observe(max(0.0, _timer_of.time() - due))
    _timer_of = None
    tell()


LONGEST_LINE = 16_000
"""Bytes of a log line; container runtimes cut lines at 16 KiB."""
_LIMITS = (8000, 2000, 400, 50)
"""How many characters each field of a line that is too long may keep, tried in this order."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encode = json.JSONEncoder(default=str, allow_nan=False).encode  # ASCII only: nothing in it can end a line or paint it


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, and whatever was given as `extra`.

    Whatever a field holds, the line can be parsed, is ASCII, and has at most LONGEST_LINE bytes: fields are shortened
    in the middle, and left out when even that is not enough.
    """

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record, CallLines):
            return record.to_json()
        line = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        own = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        try:
            text = _encode(own | line | own)  # first, and not to be forged by a field of the same name
        except Exception:  # noqa: BLE001 - no JSON: a cycle, a key that is no text, a number that is none
            text = ""
        return text if 0 < len(text) <= LONGEST_LINE else _shortened(own, line)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit are no reason to lose the line
        return _text(record.msg)


def _shortened(own: dict[str, str], line: dict[str, Any]) -> str:
    text = ""
    for limit in _LIMITS:
        text = _encode({_cut(_text(name), limit): _short(value, limit) for name, value in (own | line | own).items()})
        if len(text) <= LONGEST_LINE:
            return text
    return _encode({name: _cut(value, _LIMITS[-1]) for name, value in own.items()})


def _short(value: object, limit: int) -> object:
    return value if value is None or isinstance(value, bool) else _cut(_text(value), limit)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - it is only to be shown
        return f"<{type(value).__name__}>"


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ...{len(text) - 2 * half} characters... {text[-half:]}"


def configure_logging() -> None:
    """Send every log to standard output, as JSON lines."""
    handler = Output(tell, Beside(sys.stdout, DROPPED.labels("log").inc))
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def forget_process(pid: int) -> None:
    """Leave a dead worker out of the gauges; what it has counted stays."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve_metrics(address: str) -> None:
    """Answer Prometheus at `address`, from a thread of its own; OSError when the port is taken."""
    host, _, port = address.rpartition(":")
    registry = prometheus_client.REGISTRY
    if MULTIPROCESS_DIR in os.environ:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    prometheus_client.start_http_server(int(port), host.strip("[]"), registry)
