"""The parts of our Envoy's configuration whose cost is measured, and how each of them is left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.envoy_server import PROVIDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Config = dict[str, Any]
OURS, AGAIN = "nothing", "nothing, once more"
FILTERS = "envoy.filters.http."
UPSTREAM = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
GATEWAY = ("body-limit", "answer", "decompressor", "hold", "decision", "credentials", "strip")
PROVIDER_CLUSTER = f"provider-{PROVIDER}"
BARE_ATTEMPT = """
local M = {}
function M.on_request(handle, _, authority, prefix)
  local length, headers = handle:body(true):length(), handle:headers()
  headers:replace("content-length", tostring(length))
  headers:replace(":authority", authority)
  headers:replace(":path", prefix .. "/chat/completions")
end
function M.on_response(handle) end
return M
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What is left out, in the report's words, and how."""

    name: str
    leave_out: Callable[[Config], None]


def manager(config: Config) -> Config:
    """Return the configuration of the public listener's connection manager."""
    found: Config = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def routes(config: Config) -> list[Config]:
    found: list[Config] = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def _filters(name: str, *names: str) -> Part:
    """Leave these filters out, and what routes say to them."""

    def leave_out(config: Config) -> None:
        gone = set(names)
        kept = [each for each in manager(config)["http_filters"] if each["name"] not in gone]
        assert len(kept) + len(gone) == len(manager(config)["http_filters"]), names
        manager(config)["http_filters"] = kept
        for place in (*manager(config)["route_config"]["virtual_hosts"], *routes(config)):
            for each in gone:
                place.get("typed_per_filter_config", {}).pop(each, None)

    return Part(name, leave_out)


def _settings(name: str, *names: str) -> Part:
    """Leave these settings of the connection manager out."""

    def leave_out(config: Config) -> None:
        for each in names:
            del manager(config)[each]

    return Part(name, leave_out)


def _logs(name: str, numbers: Iterable[int]) -> Part:
    def leave_out(config: Config) -> None:
        gone = set(numbers)
        logs = manager(config)["access_log"]
        manager(config)["access_log"] = [each for number, each in enumerate(logs) if number not in gone]

    return Part(name, leave_out)


def _deadlines(config: Config) -> None:
    for route in routes(config):
        route.pop("request_headers_to_add", None)
        for name in ("max_stream_duration", "retry_policy"):
            route.get("route", {}).pop(name, None)


def _other_routes(config: Config) -> None:
    routes(config)[:] = [route for route in routes(config) if route["name"] == "bearer"]


def _http2(config: Config) -> None:
    for cluster in config["static_resources"]["clusters"][:2]:
        options = cluster["typed_extension_protocol_options"][UPSTREAM]
        options["explicit_http_config"] = {"http2_protocol_options": {}}


def _health_checks(config: Config) -> None:
    for cluster in config["static_resources"]["clusters"][:2]:
        del cluster["health_checks"]


def _transcoding(config: Config) -> None:
    (transcoder,) = [each for each in manager(config)["http_filters"] if each["name"].endswith("transcoder")]
    for name in ("convert_grpc_status", "case_insensitive_enum_parsing", "request_validation_options"):
        del transcoder["typed_config"][name]
    transcoder["typed_config"]["services"] = ["llmrouter.v2.RoutingService"]


def _services(config: Config) -> None:
    (transcoder,) = [each for each in manager(config)["http_filters"] if each["name"].endswith("transcoder")]
    transcoder["typed_config"]["services"] = ["llmrouter.v2.RoutingService"]


def _cds(config: Config) -> None:
    del config["dynamic_resources"]


def _jwt_cache(config: Config) -> None:
    (authn,) = [each for each in manager(config)["http_filters"] if each["name"].endswith("jwt_authn")]
    for provider in authn["typed_config"]["providers"].values():
        del provider["jwt_cache_config"]


def _decision(config: Config) -> None:
    """Let the provider be asked at once, as a plain Envoy does."""
    gone = {f"gateway-{name}" for name in GATEWAY}
    manager(config)["route_config"]["validate_clusters"] = False  # it comes by discovery
    manager(config)["http_filters"] = [each for each in manager(config)["http_filters"] if each["name"] not in gone]
    for route in routes(config):
        if "inline_cluster_specifier_plugin" in route.get("route", {}):
            route["route"] = {"cluster": PROVIDER_CLUSTER, "timeout": "0s"}
        for each in gone:
            route.get("typed_per_filter_config", {}).pop(each, None)
    _attempts(config)


def _attempts(config: Config) -> None:
    """Let each provider's cluster find another gateway_attempt.lua, which only puts the provider's address in."""
    folder = Path(config["admin"]["address"]["pipe"]["path"]).with_suffix(".lua")
    folder.mkdir()
    (folder / "gateway_attempt.lua").write_text(BARE_ATTEMPT, encoding="utf-8")
    config["node"]["metadata"]["lua_dir"] = str(folder)


BOTH = (
    _filters("request ids and the shape of errors", "hidden-headers", "envelope", "entrance"),
    _filters("cors", FILTERS + "cors"),
    _filters("jwt_authn", FILTERS + "jwt_authn"),
    Part("jwt_authn's cache", _jwt_cache),
    _filters("local_ratelimit", FILTERS + "local_ratelimit"),
    _logs("access log", (0,)),
    _logs("all access logs", (0, 1, 2)),
    _settings("early header mutation", "early_header_mutation_extensions"),
    _settings("local_reply_config", "local_reply_config"),
    _settings(
        "paths, ids and time-outs", "normalize_path", "merge_slashes", "always_set_request_id_in_response",
        "request_headers_timeout", "request_timeout", "stream_idle_timeout", "common_http_protocol_options",
    ),
    Part("deadlines and retries", _deadlines),
    Part("HTTP/2's settings", _http2),
    Part("health checks", _health_checks),
)  # fmt: skip
JSON_PARTS = (
    *BOTH,
    _filters("health_check", FILTERS + "health_check"),
    _filters("csrf", FILTERS + "csrf"),
    _filters("body_size_limit", FILTERS + "body_size_limit"),
    _filters("request_check.lua", "request-check"),
    _filters("the headers that pass", "passed-headers"),
    _filters("the gateway's filters", *(f"gateway-{each}" for each in GATEWAY)),
    Part("all other routes", _other_routes),
    Part("the transcoder's other services", _services),
    Part("the transcoder's options", _transcoding),
    Part("cluster discovery", _cds),
)
CHAT_PARTS = (
    *BOTH,
    _logs("access log over gRPC", (1,)),
    _logs("journal", (2,)),
    _filters("gateway_answer.lua", "gateway-answer"),
    _filters("decompressor", "gateway-decompressor"),
    _filters("body limit", "gateway-body-limit"),
    Part("gateway_attempt.lua", _attempts),
    Part("the decision and all that it brings", _decision),
)
