"""The threads around the gRPC server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from llmrouter_server.cli import GRPC_POLLING
from llmrouter_server.runtime import grpc_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux' scheduler that is told")

SCRIPT = """
import asyncio, json, os
from typing import Any, cast
from llmrouter_server.runtime.grpc_server import make_server
from llmrouter_server.runtime.interceptor import CallInterceptor

async def main() -> None:
    server = make_server(CallInterceptor(cast("Any", None), longest_s=1.0), reuse_port=False)
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    threads = {int(each): os.sched_getscheduler(int(each)) for each in os.listdir("/proc/self/task")}
    print(json.dumps([threads.pop(os.getpid()), *threads.values()]))
    await server.stop(None)

asyncio.run(main())
"""


async def test_grpcs_threads_wait_for_pythons_core_and_pythons_own_stays_as_urgent_as_it_was() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SCRIPT, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    main, *of_grpc = json.loads(printed)
    assert main == os.SCHED_OTHER
    assert set(of_grpc) == {os.SCHED_BATCH}


def test_grpc_knows_the_way_of_polling_that_serve_chooses() -> None:
    name, choice = GRPC_POLLING
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT], env=os.environ | {name: value}, capture_output=True, check=True
        ).stderr
        for value in (choice, f"{choice}_of_old")
    ]
    assert b"Unknown experiment" not in told[0]
    assert b"Unknown experiment" in told[1]


def test_who_has_left_before_an_answer_could_be_sent_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    grpc_server.configure_logging()
    log = logging.getLogger(grpc_server.GRPC_LOGGER)
    for raised in (cygrpc.ExecuteBatchError("Failed"), grpc.aio.InternalError("a fault"), ValueError("another")):
        try:
            raise raised
        except (grpc.aio.InternalError, ValueError):
            log.exception("raised by servicer method")
    log.error("without an exception")
    told = [record.exc_info and record.exc_info[1] for record in caplog.records]
    assert [type(each) for each in told] == [grpc.aio.InternalError, ValueError, type(None)]
