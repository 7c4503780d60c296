"""Envoy's clusters, one for each provider: where it is, how it is spoken to, and that it is who it says it is."""

from __future__ import annotations

import ipaddress
import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from google.protobuf import json_format

from llmrouter_server.catalog.provider import endpoint_problem
from llmrouter_server.gateway.envoy_api import POOL, Cluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import Snapshot

CONNECT_S = 2
IDLE_S = 55
"""Less than the 60 s after which many servers and load balancers hang up on an idle connection without a word."""
BUFFER_BYTES = 1_048_576
"""Of an answer that its client takes slowly; above that the provider has to wait."""
MAX_CONNECTIONS = 1024
MAX_REQUESTS = 4096
MAX_HEADERS = 100
MAX_HEADERS_KIB = 60
MAX_NAME = 253
"""Characters of a host's name (RFC 1035, section 2.3.4, without the root's dot)."""
DEFAULT_PORTS = {"http": 80, "https": 443}
DEAD_END = {"socket_address": {"address": "127.0.0.1", "port_value": 1}}
_TYPE = "type.googleapis.com/envoy"
_LUA_PLAIN = frozenset(b"-./:[]_" + (string.ascii_letters + string.digits).encode())
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as Envoy needs it."""

    provider_id: UUID
    api_endpoint: str
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider's base URL, taken apart."""

    host: str
    """A name in lower case, or an IP address; without brackets."""
    port: int
    authority: str
    """What the provider is asked for by: without the scheme's own port."""
    path_prefix: str
    """Percent-encoded, without a slash at its end; empty for the root."""
    is_tls: bool
    is_address: bool


def cluster_name(provider_id: UUID) -> str:
    """Return the name that Envoy knows a provider by."""
    return f"provider-{provider_id}"


class Upstreams:
    """The providers of the newest snapshot: the same object again while the snapshot is the same."""

    def __init__(self, current: Callable[[], Awaitable[Snapshot]]) -> None:
        self._current = current
        self._snapshot: Snapshot | None = None
        self._found: tuple[Upstream, ...] = ()

    async def __call__(self) -> tuple[Upstream, ...]:
        """Return them; raises what `current` raises."""
        snapshot = await self._current()
        if snapshot is not self._snapshot:
            self._snapshot, self._found = snapshot, upstreams_of(snapshot)
        return self._found


def upstreams_of(snapshot: Snapshot) -> tuple[Upstream, ...]:
    """Return the providers of the snapshot's models, also those that are not enabled, in the order of their ids."""
    one_of_each = sorted(snapshot.providers, key=lambda model: model.provider_id.int)
    return tuple(Upstream(model.provider_id, model.api_endpoint, model.provider_enabled) for model in one_of_each)


def cluster_of(upstream: Upstream, *, ca_file: str, lua_dir: str) -> dict[str, Any]:
    """Return a provider's cluster as JSON; ValueError when its endpoint is no usable URL.

    ca_file: the authorities that are trusted. lua_dir: where gateway_attempt.lua is. Both as Envoy sees them.

    A provider that is not enabled has one too, which leads nowhere: a request under way may still name it as its next
    choice. Envoy goes on to the choice after that when a connection cannot be made, but not when there is no cluster.
    """
    endpoint = endpoint_of(upstream.api_endpoint)
    name = cluster_name(upstream.provider_id)
    groups = [DEAD_END]
    if upstream.is_enabled:
        # Behind the real one. Without it, a name that does not resolve would end the request instead of the attempt.
        # And since one of its addresses is known at once, Envoy knows the cluster when it acknowledges it: neither its
        # start nor a new provider waits for DNS.
        groups = [{"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}, DEAD_END]
    is_static = endpoint.is_address or not upstream.is_enabled
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC" if is_static else "STRICT_DNS",
        "connect_timeout": f"{CONNECT_S}s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        # As good as none: who meets one gets an error, and not the next provider. The retries' own, 3 unless it is set,
        # would already refuse to fail over when a few requests do so at once.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MAX_CONNECTIONS,
                    "max_pending_requests": MAX_REQUESTS,
                    "max_requests": MAX_REQUESTS,
                    "max_retries": MAX_CONNECTIONS,
                }
            ]
        },
        # A stream may be silent for long: without this, one whose provider is gone would look the same.
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _http(upstream, endpoint, lua_dir)
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"priority": priority, "lb_endpoints": [{"endpoint": {"address": address}}]}
                for priority, address in enumerate(groups)
            ],
        },
    }
    if not is_static:  # looked up again every 5 s
        cluster["dns_lookup_family"] = "V4_PREFERRED"
    if endpoint.is_tls:
        cluster["transport_socket"] = _tls(endpoint, ca_file)
    return cluster


def cluster_message(cluster: dict[str, Any]) -> Any:  # noqa: ANN401 - its class is made at run time
    """Return a cluster as Envoy's message."""
    return json_format.ParseDict(cluster, Cluster(), descriptor_pool=POOL)


def endpoint_of(api_endpoint: str) -> Endpoint:
    """Take a provider's base URL apart; ValueError when it is none, or has a host that no certificate could name."""
    problem = endpoint_problem(api_endpoint, allow_private=True)  # whether it may be private, the catalogue has decided
    if problem:
        raise ValueError(f"api_endpoint {problem}")
    url = urlsplit(api_endpoint)
    host = (url.hostname or "").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        host = str(address)
    if len(host) > MAX_NAME or "%" in host:  # a zone is of one machine, and Envoy may be on another
        raise ValueError("api_endpoint must have a host that is a name or an address")
    default = DEFAULT_PORTS[url.scheme]
    port = url.port or default
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(
        host=host,
        port=port,
        authority=shown if port == default else f"{shown}:{port}",
        path_prefix=quote(_STRAY_PERCENT.sub("%25", url.path), safe="/%:@!$&'()*+,;=~-._").rstrip("/"),
        is_tls=url.scheme == "https",
        is_address=address is not None,
    )


def _http(upstream: Upstream, endpoint: Endpoint, lua_dir: str) -> dict[str, Any]:
    one: dict[str, Any] = {}
    two = {
        "max_concurrent_streams": 100,  # a connection that breaks takes no more requests with it
        "initial_stream_window_size": BUFFER_BYTES,
        "initial_connection_window_size": 16 * BUFFER_BYTES,  # those who read slowly must not hold up the others
        "connection_keepalive": {"interval": "30s", "timeout": "10s"},
    }
    if endpoint.is_tls:
        versions = {"auto_config": {"http_protocol_options": one, "http2_protocol_options": two}}
    else:
        versions = {"explicit_http_config": {"http_protocol_options": one}}
    # Filters of an attempt cannot see which cluster it goes to, and so are told.
    known = ", ".join(map(_lua_text, (str(upstream.provider_id), endpoint.authority, endpoint.path_prefix)))
    code = (
        'local attempt = require("gateway_attempt")\n'
        f"function envoy_on_request(h) attempt.on_request(h, {known}) end\n"
        "function envoy_on_response(h) attempt.on_response(h) end\n"
    )
    return {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {
            "idle_timeout": f"{IDLE_S}s",
            "max_headers_count": MAX_HEADERS,
            "max_response_headers_kb": MAX_HEADERS_KIB,
        },
        **versions,
        "http_filters": [
            {
                "name": "attempt",
                "typed_config": {
                    "@type": f"{_TYPE}.extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": code},
                    "package_paths": [f"{lua_dir.rstrip('/')}/?.lua"],
                    "stat_prefix": "attempt",
                },
            },
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
            },
        ],
    }


def _tls(endpoint: Endpoint, ca_file: str) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "" if endpoint.is_address else endpoint.host,  # RFC 6066, section 3: a name, never an address
            "common_tls_context": {
                # The default of clients is 1.2 at most.
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "validation_context": {
                    "trusted_ca": {"filename": ca_file},
                    "match_typed_subject_alt_names": [
                        {
                            "san_type": "IP_ADDRESS" if endpoint.is_address else "DNS",
                            "matcher": {"exact": endpoint.host},
                        }
                    ],
                },
            },
        },
    }


def _lua_text(text: str) -> str:
    """Return a Lua string. All but plain characters stand in it as numbers, so that nothing can end it."""
    return '"' + "".join(chr(byte) if byte in _LUA_PLAIN else f"\\{byte:03d}" for byte in text.encode()) + '"'
