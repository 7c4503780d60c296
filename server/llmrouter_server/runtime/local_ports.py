"""TCP ports of 127.0.0.1: finding a free one, and saying who holds a busy one."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

HOST = "127.0.0.1"
LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port; PermissionError when this account may not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are ending do not count
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise
        except OSError:
            return False
        return True


def holder_of(port: int) -> str | None:
    """Return `name, pid N` of the process that listens on the port; None when that cannot be known (only on Linux)."""
    with contextlib.suppress(OSError):
        sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if str(link.readlink()) in sockets:
                    process = link.parent.parent
                    return f"{(process / 'comm').read_text(encoding='utf-8').strip()}, pid {process.name}"
    return None


def _listening_inodes(port: int) -> list[str]:
    rows = [
        row.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in Path(table).read_text(encoding="ascii").splitlines()[1:]
    ]
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]
