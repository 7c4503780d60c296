"""The grpc.aio server around the services: its options, health checks, reflection, listening and draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.intake import told_by_a_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmrouter_server.config import Settings
    from llmrouter_server.runtime.database import Database
    from llmrouter_server.runtime.intake import Intake
    from llmrouter_server.runtime.interceptor import CallInterceptor

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1_048_576
GRPC_LOGGER = "grpc._cython.cygrpc"


class StartError(Exception):
    """The server cannot start; the message says in one sentence why."""


@contextlib.contextmanager
def few_wake_ups() -> Iterator[None]:
    """Make servers in this block: what gRPC starts with the first one is made to wake others up seldom and cheaply."""
    with _patient_threads(), told_by_a_pipe():
        yield


@contextlib.contextmanager
def _patient_threads() -> Iterator[None]:
    """Let threads of gRPC's that wake up on a busy core wait until Python's has no more to do.

    They would take the core from it seven times a call, to tell it something each time. As Linux' SCHED_BATCH they are
    as urgent else, and have done more by the time it asks. They start with the first server, and inherit the policy.
    """
    is_patient = sys.platform == "linux" and _be_patient()
    try:
        yield
    finally:
        if is_patient:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _be_patient() -> bool:
    """Schedule this thread so; False when the operator, or a sandbox, has decided otherwise."""
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:
        return False
    return True


def configure_logging() -> None:
    """Leave out what grpc.aio tells, as an error, of an answer that could not be sent because its client had just left.

    It does so itself where it hears of that in time.
    """
    logging.getLogger(GRPC_LOGGER).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.exc_info is None or type(record.exc_info[1]).__name__ != "ExecuteBatchError"  # no public name


def make_server(interceptor: CallInterceptor, *, reuse_port: bool) -> grpc.aio.Server:
    """Make a server of what was, or will be, added to the interceptor."""
    with few_wake_ups():
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(reuse_port)),
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
    server.add_generic_rpc_handlers((interceptor,))
    return server


def add_reflection(server: CallInterceptor, service_names: Sequence[str]) -> None:
    """Let tools such as grpcurl ask what is served."""
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*service_names, health, reflection.SERVICE_NAME), server)


def add_health(server: CallInterceptor, database: Database, service_names: Sequence[str]) -> health_aio.HealthServicer:
    """Answer health checks, overall and for each service: serving while the database answers."""
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    tasks: set[asyncio.Task[Any]] = set()

    async def tell(status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *service_names):
            await health.set(name, status)

    def follow(up: bool) -> None:
        telemetry.DATABASE_UP.set(int(up))
        status = health_pb2.HealthCheckResponse
        task = asyncio.create_task(tell(status.SERVING if up else status.NOT_SERVING))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    database.on_change(follow)
    return health


async def run(
    server: grpc.aio.Server, intake: Intake, health: health_aio.HealthServicer, settings: Settings, stop: asyncio.Event
) -> None:
    """Serve until `stop`, then drain: health checks say so first, then new calls are refused, then old ones end."""
    _listen(server, settings)
    await intake.start()
    log.info("serving", extra={"address": settings.listen_address})
    await stop.wait()
    log.info("draining")
    await health.enter_graceful_shutdown()
    await asyncio.sleep(settings.drain_notice_s)
    await server.stop(settings.drain_timeout_s)


def _listen(server: grpc.aio.Server, settings: Settings) -> None:
    try:
        server.add_insecure_port(settings.listen_address)
        if settings.metrics_address is not None:
            telemetry.serve_metrics(settings.metrics_address)
    except (RuntimeError, OSError):
        addresses = settings.listen_address + (f" or {settings.metrics_address}" if settings.metrics_address else "")
        raise StartError(f"cannot listen on {addresses}: the address is taken or not this machine's") from None
