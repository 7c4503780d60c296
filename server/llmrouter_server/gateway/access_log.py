"""The door of the gateway for reports: Envoy's gRPC access log, one entry for each chat request that had a plan.

https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/service/accesslog/v3/als.proto
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import grpc

from llmrouter_server.gateway.ended import ended_from
from llmrouter_server.gateway.envoy_api import StreamAccessLogsMessage, StreamAccessLogsResponse
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmrouter_server.gateway.ended import Ended
    from llmrouter_server.gateway.plan import PlansUnderWay
    from llmrouter_server.gateway.reporting import Reporter
    from llmrouter_server.runtime.interceptor import Context

log = logging.getLogger(__name__)

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
PLAN = "llmrouter.plan"
REST = ("llmrouter.attempts", "llmrouter.usage", "llmrouter.stream")
FLAGS = {
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "downstream_remote_reset": "DR",
}
"""Envoy's fields for why a request ended, and their short names, which the file log has."""
AT_ONCE = 10
"""Entries that are read before others have their turn: a message holds all that waited while no server took any."""


class AccessLog:
    """Hands what Envoy tells on to the reporter."""

    def __init__(self, reporter: Reporter, plans: PlansUnderWay) -> None:
        self._reporter, self._plans = reporter, plans

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server takes."""
        take = grpc.stream_unary_rpc_method_handler(
            self._take, StreamAccessLogsMessage.FromString, StreamAccessLogsResponse.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": take})

    async def _take(self, messages: AsyncIterator[Any], _context: Context) -> Any:  # noqa: ANN401
        async for message in messages:
            async for entry in in_turns(message.http_logs.log_entry, AT_ONCE):
                ended = self._ended(entry)
                if ended is not None:
                    self._reporter.add(ended)
        return StreamAccessLogsResponse()

    def _ended(self, entry: Any) -> Ended | None:  # noqa: ANN401 - a message made at run time
        common, response = entry.common_properties, entry.response
        namespaces = common.metadata.filter_metadata
        plan = self._plans.take(namespaces[PLAN].fields["decision_id"].string_value) if PLAN in namespaces else None
        names = REST if plan is not None else (PLAN, *REST)
        return ended_from(
            {name: _plain(namespaces[name]) for name in names if name in namespaces},
            status=response.response_code.value,
            flags=[FLAGS[field.name] for field, _ in common.response_flags.ListFields() if field.name in FLAGS],
            body_bytes=response.response_body_bytes,
            duration_ms=common.duration.ToMilliseconds(),
            plan=plan,
        )


def _plain(struct: Any) -> dict[str, Any]:  # noqa: ANN401
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Any) -> Any:  # noqa: ANN401
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain(value.struct_value)
    if kind == "list_value":
        return [_value(each) for each in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)
