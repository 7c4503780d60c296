"""Traces of calls, when an operator wants them. Else nothing of OpenTelemetry is even imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class TracingError(Exception):
    """Traces cannot be made as they are asked for; the message says in one sentence why."""


class Span(Protocol):
    """One call, as a trace tells it."""

    def end(self, code: str, reason: str | None) -> None:
        """Note that the call is over: its gRPC code by name, and the reason of its error if it has one."""


class Tracer(Protocol):
    """Makes spans of calls, and delivers them behind the calls' backs."""

    async def start(self) -> None:
        """Begin to deliver."""

    async def stop(self) -> None:
        """Deliver what is left, for at most 3 s."""

    def start_span(self, method: str, metadata: Mapping[str, str], request_id: str) -> Span:
        """Begin the span of a call, below the one that its metadata names (W3C trace context), if any."""


def configure(endpoint: str) -> Tracer:
    """Return what sends traces to the OpenTelemetry collector at this URL; TracingError when it cannot be had.

    Sampling, headers, time-outs and the resource's attributes come from OpenTelemetry's own variables (OTEL_*).
    """
    try:
        from llmrouter_server.runtime.otlp import OtlpTracer  # noqa: PLC0415 - an extra, and costly to import
    except ImportError as error:
        raise TracingError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name or 'OpenTelemetry'} is not installed: "
            "install llmrouter-server[tracing], or unset it"
        ) from None
    return OtlpTracer(endpoint)
