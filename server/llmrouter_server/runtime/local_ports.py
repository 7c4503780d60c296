"""TCP ports of 127.0.0.1: finding a free one, and saying who holds a busy one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 2.0
LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody uses now, and that the system gives to nobody who asks for any port.

    That holds for about a minute, TIME_WAIT, in which a server that names the port can listen on it.
    """
    return [_reserved_port() for _ in range(count)]


def _reserved_port() -> int:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HOST, 0))
        server.listen(1)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()  # this side is the first to close: the connection stays behind in TIME_WAIT
        port: int = server.getsockname()[1]
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


async def http_status(port: int, path: str) -> int | None:
    """Return the status of a GET; None when nobody answers. Only to wait for a server: redirects are not followed."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(request.encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return None


async def accepts(port: int) -> bool:
    """Whether somebody takes connections on the port."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return True
    return False
