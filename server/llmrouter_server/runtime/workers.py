"""Several server processes on one address: started, watched, replaced and stopped by this one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.local_process import launch_command, send_signal

if TYPE_CHECKING:
    from llmrouter_server.config import Settings

log = logging.getLogger(__name__)

RESTART_DELAY_S = 1.0
CLOSING_S = 15.0
"""How long a server may take to write and close what is left, after it has drained."""
CANNOT_START = (1, 2)
"""Exit codes by which a worker says that the next one would not start either."""


def supervise(count: int, settings: Settings) -> int:
    """Run `count` workers until SIGTERM or SIGINT and return the exit code.

    A worker that has not ended when it must have drained and closed is killed.
    """
    telemetry.configure_logging()
    metrics_address = settings.metrics_address
    patience_s = settings.drain_notice_s + settings.drain_timeout_s + CLOSING_S
    for address in (settings.listen_address, metrics_address):
        if address is not None and not _is_free(address):
            log.error("cannot listen on %s: the address is taken or not this machine's", address)
            return 1
    with tempfile.TemporaryDirectory(prefix="llmrouter-metrics-") as shared:
        os.environ[telemetry.MULTIPROCESS_DIR] = shared
        if metrics_address is not None:
            telemetry.serve_metrics(metrics_address)
        return asyncio.run(_supervise(count, patience_s))


async def _supervise(count: int, patience_s: float) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    codes = await asyncio.gather(*(_keep_running(number, stop, patience_s) for number in range(1, count + 1)))
    return max(codes)


async def _keep_running(number: int, stop: asyncio.Event, patience_s: float) -> int:
    """Run one worker, and another when it dies, until `stop`; a worker that cannot start stops them all."""
    environment = {name: value for name, value in os.environ.items() if name != "METRICS_ADDRESS"}
    environment["LISTEN_REUSE_PORT"] = "true"
    # Through the launcher it gets SIGTERM, and drains, when this process is killed (Linux).
    serve = [sys.executable, "-m", "llmrouter_server", "serve"]
    command = launch_command(serve, account=None, death_signal=signal.SIGTERM)
    while True:
        worker = await asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True)
        log.info("worker started", extra={"worker": number, "pid": worker.pid})
        ended, stopped = asyncio.ensure_future(worker.wait()), asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stop.is_set():
            send_signal(worker, signal.SIGTERM)
            await asyncio.wait({ended}, timeout=patience_s)
            if worker.returncode is None:
                log.error("worker did not end and is killed", extra={"worker": number, "pid": worker.pid})
                send_signal(worker, signal.SIGKILL)
            code = await ended
            return 0 if code == -signal.SIGTERM else abs(code)  # it was told to stop before it had even started
        code = await ended
        if code in CANNOT_START:
            stop.set()
            return code
        telemetry.forget_process(worker.pid)
        log.error("worker died", extra={"worker": number, "pid": worker.pid, "exit_code": code})
        await asyncio.sleep(RESTART_DELAY_S)


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError:
        return False
    return True
