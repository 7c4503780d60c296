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
    "llmrouter_database_up", "1 while the database answers, else 0.", multiprocess_mode="min"
)
QUICK_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

NOTIFICATIONS_LIVE = prometheus_client.Gauge(
    "llmrouter_notifications_live",
    "1 while changes are heard of at once, else 0: then every decision reads the database.",
    multiprocess_mode="min",
)
POOL_CONNECTIONS = prometheus_client.Gauge(
    "llmrouter_pool_connections", "Connections to Postgres, by state (idle, used).", ["state"], multiprocess_mode="sum"
)
POOL_WAIT_SECONDS = prometheus_client.Histogram(
    "llmrouter_pool_wait_seconds", "Time to get a connection of the pool, in seconds.", buckets=QUICK_SECONDS
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
    "llmrouter_cached", "Entries kept in memory, by cache.", ["cache"], multiprocess_mode="sum"
)
DECISIONS = prometheus_client.Counter(
    "llmrouter_decisions", "Routing decisions, by the model chosen.", ["provider", "model", "power_level"]
)
DECISIONS_FLAGGED = prometheus_client.Counter(
    "llmrouter_decisions_flagged", "Routing decisions that were degraded or downgraded.", ["flag"]
)
EXCLUSIONS = prometheus_client.Counter(
    "llmrouter_exclusions", "Models excluded from routing decisions, by reason.", ["reason"]
)
PROVIDER_HEALTH = prometheus_client.Gauge(
    "llmrouter_provider_health",
    "1 for the status that a provider has on the replica, 0 for the others.",
    ["provider", "status"],
    multiprocess_mode="max",
)
ATTEMPTS = prometheus_client.Counter(
    "llmrouter_attempts", "Attempts at providers, by provider and outcome.", ["provider", "outcome"]
)
KEY_READS = prometheus_client.Counter(
    "llmrouter_key_reads", "Provider keys decrypted, by purpose and payer.", ["purpose", "payer"]
)
CATALOG_SNAPSHOT = prometheus_client.Gauge(
    "llmrouter_catalog_snapshot", "Number of the newest catalogue snapshot in memory.", multiprocess_mode="min"
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


def serve_metrics(address: str) -> None:
    """Answer Prometheus at `address`, from a thread of its own; OSError when the port is taken."""
    host, _, port = address.rpartition(":")
    registry = prometheus_client.REGISTRY
    if MULTIPROCESS_DIR in os.environ:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    prometheus_client.start_http_server(int(port), host.strip("[]"), registry)
