"""`llmrouter serve` as a process of its own, over any database; always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER
from llmrouter_server.runtime.local_ports import accepts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmrouter_server.runtime.dev_identity import DevIdentity

START_S = 60.0


@contextlib.asynccontextmanager
async def server(
    folder: Path, url: str, identity: DevIdentity, port: int, key: str, **changes: str
) -> AsyncIterator[str]:
    """Serve on a port of loopback and return the address; `changes` are settings. The log is in the folder."""
    address = f"127.0.0.1:{port}"
    environment = os.environ | {
        "DATABASE_URL": url,
        "BYOK_ENCRYPTION_KEY": key,
        "AUTH_JWKS": str(identity.jwks_file),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "LISTEN_ADDRESS": address,
        "DRAIN_NOTICE_SECONDS": "0.1",
        "DRAIN_TIMEOUT_SECONDS": "2",
        **changes,
    }
    with (folder / f"{port}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llmrouter_server", "serve", env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        async with asyncio.timeout(START_S):
            while not await accepts(port):
                await asyncio.sleep(0.02)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):  # a test may have killed it
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), START_S)
        if process.returncode is None:
            process.kill()
            await process.wait()
