"""What another process of this machine has used; Linux only."""

from __future__ import annotations

import re
import time
from pathlib import Path

KIB = 1024


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, in user and system mode, in seconds, exact to nanoseconds.

    It is the process's own clock, whose id clock_getcpuclockid(3) makes so; /proc counts in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def waited_s(pid: int) -> float:
    """Return how long its threads have waited for a CPU while they could have run, all together, in seconds."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[1]) for thread in threads) / 1e9


def resident_bytes(pid: int) -> int:
    """Return how much memory it has in RAM."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * KIB
