"""Envoy as a plain proxy in front of the mock provider: the least that any gateway made of it can cost."""

from __future__ import annotations

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
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
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
    - name: provider
      type: STATIC
      load_assignment:
        cluster_name: provider
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {provider}}}}}}}
"""


def plain_config(port: int, provider: int) -> str:
    """Return the configuration that listens on `port` and passes everything on to port `provider`."""
    return CONFIG.format(port=port, provider=provider, manager=MANAGER)
