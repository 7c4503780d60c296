"""Spans by OpenTelemetry, delivered by OTLP over HTTP. Imported only when traces are wanted: see `tracing`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.tracing import TracingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 3.0
CODES = {code.name: code.value[0] for code in grpc.StatusCode}
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that are the server's fault; the others are the caller's (OpenTelemetry's conventions for RPC servers)."""
NOWHERE = Context()


class OtlpTracer:
    """Makes spans of calls. A thread delivers them; what cannot be delivered is dropped and counted."""

    def __init__(self, endpoint: str) -> None:
        theirs = logging.getLogger("opentelemetry")
        theirs.propagate = True
        logging.getLogger("opentelemetry.util.re").disabled = True  # it quotes headers, and so perhaps a password
        try:
            self._delivery = _Delivery(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"))
            self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        except (ValueError, RuntimeError, OSError) as error:
            raise TracingError(f"one of OpenTelemetry's variables (OTEL_*) cannot be used: {error}") from None
        finally:
            theirs.propagate = False  # from now on it would be the same with every batch, or every odd header
            theirs.addHandler(logging.NullHandler())
        self._tracer = self._provider.get_tracer("llmrouter")
        self._propagator = TraceContextTextMapPropagator()
        self._attributes: dict[str, dict[str, str]] = {}

    async def start(self) -> None:
        """Begin to deliver."""
        self._provider.add_span_processor(BatchSpanProcessor(self._delivery))

    async def stop(self) -> None:
        """Deliver what is left, for at most 3 s."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def deliver() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # Not one of the loop's own threads: for those it would wait at the end.
        threading.Thread(target=deliver, name="last traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), STOP_TIMEOUT_S)
        self._delivery.shutdown()

    def start_span(self, method: str, metadata: Mapping[str, str], request_id: str) -> _CallSpan:
        """Begin the span of a call, below the one that its metadata names (W3C trace context), if any."""
        name = method.removeprefix("/")
        attributes = self._attributes.get(method)
        if attributes is None:
            service, _, rpc = name.rpartition("/")
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc}
            self._attributes[method] = attributes
        return _CallSpan(
            self._tracer.start_span(
                name,
                self._propagator.extract(metadata, NOWHERE) if "traceparent" in metadata else NOWHERE,
                SpanKind.SERVER,
                {**attributes, "llmrouter.request_id": request_id},
            )
        )


class _CallSpan:
    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, code: str, reason: str | None) -> None:
        """Note that the call is over: its gRPC code by name, and the reason of its error if it has one."""
        self._span.set_attribute("rpc.grpc.status_code", CODES[code])
        if reason is not None:
            self._span.set_attribute("error.type", reason)
        if code in FAULTS:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _Delivery(SpanExporter):
    """Says when spans can no longer be delivered, and when they can again; not with every batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._said = _FirstWord()
        self._dropped = telemetry.DROPPED.labels("spans")
        self._delivers = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver a batch, within the exporter's own time-out."""
        self._said.text = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - it is told, and no reason to end the thread
            self._said.text = type(error).__name__
            result = SpanExportResult.FAILURE
        delivers = result is SpanExportResult.SUCCESS
        if not delivers:
            self._dropped.inc(len(spans))
        if delivers is not self._delivers:
            self._delivers = delivers
            if delivers:
                log.warning("traces are delivered again")
            else:
                log.warning("traces cannot be delivered and are dropped", extra={"error": self._said.text})
        return result

    def shutdown(self) -> None:
        """Deliver no more, and give up what is being delivered."""
        self._exporter.shutdown()
        self._said.close()


class _FirstWord(logging.Handler):
    """Keeps the first thing that the exporter says of a failure: it says why."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        logging.getLogger("opentelemetry.exporter").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text = self.text or record.getMessage()

    def close(self) -> None:
        logging.getLogger("opentelemetry.exporter").removeHandler(self)
        super().close()


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # no OTEL_SERVICE_NAME
        resource = resource.merge(Resource({SERVICE_NAME: "llmrouter"}))
    return resource
