"""A real Envoy with any bootstrap, as a process of its own on free ports; always stopped."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmrouter_server.runtime.envoy_config import ENVOY_ENV, envoy_command
from llmrouter_server.runtime.local_ports import accepts
from llmrouter_server.runtime.local_process import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

START_S = 60.0
STOPS = ((signal.SIGTERM, 10.0),)
ANSWER_S = 15.0
STUB = """
local M = {}
function M.on_request(h, provider, authority, prefix)
  local headers = h:headers()
  headers:replace("x-provider", provider)
  headers:replace(":authority", authority)
  headers:replace(":path", prefix .. "/chat")
end
function M.on_response(h) h:headers():replace("x-attempt", "seen") end
return M
"""
"""Stands for gateway_attempt.lua."""
_TYPE = "type.googleapis.com/envoy"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: str


@asynccontextmanager
async def envoy(
    folder: Path, bootstrap: Mapping[str, Any], *, port: int, log_level: str = "warn"
) -> AsyncIterator[Child]:
    """Run it until the end of the block; it begins when the port takes connections. Its log is in the folder."""
    config = folder / "envoy.json"
    config.write_text(json.dumps(bootstrap))
    process = Child("envoy", folder / "envoy.log")
    await process.start(envoy_command(config, concurrency=1, log_level=log_level), env=ENVOY_ENV)
    try:
        async with asyncio.timeout(START_S):
            while not await accepts(port):
                assert process.is_running, process.last_lines(30)
                await asyncio.sleep(0.02)
        yield process
    finally:
        await process.stop(*STOPS)


async def ask(port: int, path: str, **headers: str) -> Reply:
    """Send a GET and return the whole answer."""
    async with asyncio.timeout(ANSWER_S), connection(port, path, **headers) as (reader, _):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split()[1]), {name.lower(): value for name, value in pairs}, body)


@asynccontextmanager
async def connection(
    port: int, path: str, **headers: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a GET, for a test that reads the answer by itself. Underscores in names stand for hyphens."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "\r\n".join((f"GET {path} HTTP/1.1", "host: gateway.test", "connection: close", *lines, "", ""))
        writer.write(head.encode())
        yield reader, writer
    finally:
        writer.close()


def bootstrap(
    folder: Path,
    port: int,
    *,
    clusters: Sequence[Mapping[str, Any]] = (),
    tried_in_turn: Sequence[str] = (),
    discovery_port: int | None = None,
    first_clusters_s: int = 20,
    metadata: Mapping[str, str] | None = None,
    dns_port: int | None = None,
) -> dict[str, Any]:
    """Return what runs an Envoy that sends each request to the cluster that its header x-cluster names.

    Those with the path /in-turn go to one cluster after the other until one answers.

    first_clusters_s: how long it waits for the server at discovery_port before it listens without any.
    """
    in_turn = {
        "match": {"path": "/in-turn"},
        "route": {
            "inline_cluster_specifier_plugin": {
                "extension": {
                    "name": "priority_group",
                    "typed_config": {
                        "@type": f"{_TYPE}.extensions.router.cluster_specifiers.priority_group.v3"
                        ".PriorityGroupClusterSpecifier",
                        "priority_groups": [
                            {"name": name, "clusters": [{"cluster_name": name, "weight": 1}]} for name in tried_in_turn
                        ],
                    },
                }
            },
            "retry_policy": {
                "retry_on": "connect-failure",
                "num_retries": len(tried_in_turn),
                "refresh_cluster_on_retry": True,
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
            },
        },
    }
    named = {"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster", "timeout": "0s"}}
    connections = {
        "stat_prefix": "public",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "response_headers_to_add": [
                        {"header": {"key": "x-tls", "value": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"}}
                    ],
                    "routes": [*([in_turn] if tried_in_turn else []), named],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"}}
        ],
    }
    manager = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    made: dict[str, Any] = {
        "node": {"id": "test", "cluster": "llmrouter", "metadata": metadata or {}},
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "public",
                    "address": _address(port),
                    "filter_chains": [
                        {"filters": [{"name": "http", "typed_config": {"@type": manager, **connections}}]}
                    ],
                }
            ],
            "clusters": list(clusters),
        },
    }
    if dns_port is not None:
        made["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": f"{_TYPE}.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [_address(dns_port)],
            },
        }
    if discovery_port is not None:
        made["static_resources"]["clusters"].append(_server(discovery_port))
        made["dynamic_resources"] = _discovery(first_clusters_s)
    return made


SECRET = "made-up-secret-of-the-gateway"


def _discovery(first_clusters_s: int) -> dict[str, Any]:
    return {
        "cds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": f"{first_clusters_s}s",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "llmrouter_gateway",
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                        },
                        "initial_metadata": [{"key": "x-llmrouter-gateway-secret", "value": SECRET}],
                    }
                ],
            },
        }
    }


def _server(port: int) -> dict[str, Any]:
    return {
        "name": "llmrouter_gateway",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
                },
            }
        },
        "load_assignment": {
            "cluster_name": "llmrouter_gateway",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
