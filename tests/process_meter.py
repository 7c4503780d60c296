"""What another process of this machine has used; Linux only."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from up_process import children_of

KIB = 1024


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, in user and system mode, in seconds, exact to nanoseconds.

    It is the process's own clock, whose id clock_getcpuclockid(3) makes so; /proc counts in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def family_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children; of those that have ended in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    used = cpu_s(pid) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    for child in children_of(pid):
        with contextlib.suppress(OSError):  # it has just ended
            used += cpu_s(child)
    return used


def waited_s(pid: int) -> float:
    """Return how long its threads have waited for a CPU while they could have run, all together, in seconds."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[1]) for thread in threads) / 1e9


def resident_bytes(pid: int) -> int:
    """Return how much memory it has in RAM."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * KIB
