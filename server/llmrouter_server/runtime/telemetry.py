"""What the operator sees: logs as JSON lines, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

import prometheus_client
from prometheus_client import multiprocess

REQUESTS = prometheus_client.Counter("llmrouter_requests", "Calls answered, by RPC and gRPC code.", ["method", "code"])
SECONDS = prometheus_client.Histogram(
    "llmrouter_request_seconds",
    "Time to answer a call, in seconds, by RPC.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
DATABASE_UP = prometheus_client.Gauge(
    "llmrouter_database_up", "1 while the database answers, else 0.", multiprocess_mode="livemin"
)
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client shares counts between processes; `serve --workers` sets it for its own."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, logger, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging() -> None:
    """Send every log to standard output, as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
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
