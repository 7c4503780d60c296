"""Delivering traces: collectors that refuse, hang or are not there, and what is configured badly or not at all."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import REGISTRY

from llmrouter_server.runtime import otlp, tracing
from llmrouter_server.runtime.tracing import TracingError
from traced import AS_USER, CONTENT, PATIENCE_S, TRACED, Collector, call, collecting, good, logged, traced_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


# --- the collector ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")


def dropped() -> float:
    return REGISTRY.get_sample_value("llmrouter_dropped_total", {"queue": "spans"}) or 0.0


async def deliver(tracer: tracing.Tracer) -> None:
    assert isinstance(tracer, otlp.OtlpTracer)
    await asyncio.to_thread(tracer._provider.force_flush)


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_collector_that_refuses_is_told_once_and_so_is_its_coming_back(
    status: int, collector: Collector
) -> None:
    tracer, before = tracing.configure(collector.endpoint), dropped()
    with logged() as kept:
        async with traced_server(tracer, good) as channel:
            for collector.status in (200, status, status, status, 200, 200):
                assert await call(channel, (*AS_USER, *TRACED)) is grpc.StatusCode.OK
                await deliver(tracer)
    lines = [record for record in kept if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in lines] == [
        "traces cannot be delivered and are dropped",
        "traces are delivered again",
    ]
    assert lines[0].__dict__["error"]
    assert len(collector.spans) == 3
    assert dropped() == before + 3


@pytest.mark.usefixtures("quick")
async def test_without_a_collector_calls_are_answered_and_the_log_says_so_once() -> None:
    tracer, before = tracing.configure("http://127.0.0.1:1"), dropped()
    with logged() as kept:
        async with traced_server(tracer, good) as channel:
            for _ in range(4):
                assert await call(channel) is grpc.StatusCode.OK
                await deliver(tracer)
    (line,) = [record for record in kept if record.levelno >= logging.WARNING]
    assert line.getMessage() == "traces cannot be delivered and are dropped"
    assert dropped() == before + 4


@pytest.mark.parametrize(
    ("said", "told_error"),
    [
        (["refused", "gave up"], "refused"),
        (["gave up"], "gave up"),
        ([], ""),
        ([RuntimeError(CONTENT)], "RuntimeError"),
    ],
)
def test_the_log_says_why_traces_cannot_be_delivered(said: list[Any], told_error: str) -> None:
    class Failing(SpanExporter):
        def export(self, _: object) -> SpanExportResult:
            for word in said:
                if isinstance(word, Exception):
                    raise word
                logging.getLogger("opentelemetry.exporter.some").warning(word)
            return SpanExportResult.FAILURE

    delivery = otlp._Delivery(Failing())
    with logged() as kept:
        assert [delivery.export([]) for _ in range(3)] == [SpanExportResult.FAILURE] * 3
    delivery.shutdown()
    assert [record.__dict__["error"] for record in kept] == [told_error]


async def test_a_collector_that_hangs_holds_up_neither_calls_nor_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "STOP_TIMEOUT_S", 0.1)
    collector.open.clear()
    tracer = tracing.configure(collector.endpoint)
    async with asyncio.timeout(PATIENCE_S):
        async with traced_server(tracer, good) as channel:
            await call(channel)
            delivering = asyncio.create_task(deliver(tracer))
            await asyncio.to_thread(collector.asked.wait, PATIENCE_S)
            assert await call(channel) is grpc.StatusCode.OK
        assert collector.bodies == []  # it still hangs, and all is stopped
        collector.open.set()
        await delivering


async def test_headers_go_to_the_collector_and_never_to_the_log(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for headers in ("x-api-key=hush-hush", "x-api-key: hush-hush"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
        with logged() as kept:
            async with traced_server(tracing.configure(collector.endpoint), good) as channel:
                await call(channel)
        assert "hush-hush" not in repr([record.__dict__ for record in kept])
    assert [headers.get("x-api-key") for headers in collector.headers] == ["hush-hush", None]


# --- what is not configured, or badly ---


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "hard")]
)
def test_a_malformed_variable_of_opentelemetrys_own_is_logged(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with logged() as kept:
        tracing.configure("http://127.0.0.1:1")
    assert [value in record.getMessage() for record in kept] == [True]


def test_one_that_leaves_no_way_to_deliver_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(TracingError, match=r"^one of OpenTelemetry's variables \(OTEL_\*\) cannot be used: .*nobody"):
        tracing.configure("http://127.0.0.1:1")


async def test_the_service_may_be_named_otherwise(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "router-eu")
    async with traced_server(tracing.configure(collector.endpoint), good) as channel:
        await call(channel)
    (resource,) = collector.exports[0].resource_spans
    assert ("service.name", "router-eu") in {
        (each.key, each.value.string_value) for each in resource.resource.attributes
    }


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_without_configuration_nothing_of_opentelemetry_is_imported() -> None:
    ran = run(
        "import sys\n"
        "import llmrouter_server.app\n"
        "from llmrouter_server.runtime import interceptor, tracing\n"
        "interceptor.CallInterceptor(None, longest_s=1)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests'))])"
    )
    assert (ran.stdout.strip(), ran.returncode) == ("[]", 0), ran.stderr


def test_an_endpoint_without_the_extra_is_told_in_one_sentence() -> None:
    ran = run(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'opentelemetry':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from llmrouter_server.runtime import tracing\n"
        "try:\n"
        "    tracing.configure('http://127.0.0.1:1')\n"
        "except tracing.TracingError as error:\n"
        "    print(error)\n"
    )
    assert ran.stdout.strip() == (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry is not installed: "
        "install llmrouter-server[tracing], or unset it"
    )
