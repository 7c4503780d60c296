"""Envoy as a plain proxy, and as a plain transcoder: the least that what is made of it can cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
TRANSCODER = "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
CONFIG = """
static_resources:
  listeners:
    - name: public
      address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/{manager}
                stat_prefix: public
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{{match: {{prefix: /}}, route: {{cluster: provider, timeout: 0s}}}}]
                http_filters: {filters}
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
    - name: provider
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{{protocol}: {{}}}}
      load_assignment:
        cluster_name: provider
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {provider}}}}}}}
"""


# With the product's own options, as far as the answers' bytes depend on them.
FILTER = """
                  - name: envoy.filters.http.grpc_json_transcoder
                    typed_config:
                      "@type": type.googleapis.com/{transcoder}
                      proto_descriptor: {descriptor}
                      services: [llmrouter.v2.RoutingService]
                      print_options: {{preserve_proto_field_names: true, always_print_primitive_fields: true}}"""


def plain_config(port: int, provider: int) -> str:
    """Return the configuration that listens on `port` and passes everything on to port `provider`."""
    return CONFIG.format(port=port, provider=provider, manager=MANAGER, filters="", protocol="http_protocol_options")


def transcoder_config(port: int, server: int, descriptor: Path) -> str:
    """Return the configuration that listens on `port` and asks port `server` by gRPC what it is asked in JSON."""
    filters = FILTER.format(transcoder=TRANSCODER, descriptor=json.dumps(str(descriptor)))
    return CONFIG.format(
        port=port, provider=server, manager=MANAGER, filters=filters, protocol="http2_protocol_options"
    )
