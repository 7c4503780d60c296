"""How long each RPC may take and whether it is tried again: gRPC's service config, in service_config.json.

An RPC with a retry policy is tried up to 4 times in all, when the service is UNAVAILABLE, or a server that ends has
CANCELLED it: one's own cancellation stays one. The others are those whose second try could find the first one's work:
an ALREADY_EXISTS, RESOURCE_NOT_FOUND or ETAG_MISMATCH of one's own making.
A test fails for an RPC that is not there.

gRPC itself tries again. The deadlines go with each call instead: from its service config gRPC's core (1.85.1) would end
a call 1 to 2 s early, tell the server nothing, count no time before the name is resolved, and let no call have longer.
"""

from __future__ import annotations

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METHOD_CONFIGS: Sequence[Mapping[str, Any]] = json.loads(
    importlib.resources.files(__package__).joinpath("service_config.json").read_text(encoding="utf-8")
)["methodConfig"]
"""https://github.com/grpc/grpc-proto/blob/master/grpc/service_config/service_config.proto"""
OF_METHOD: Mapping[str, Mapping[str, Any]] = {
    f"/{name['service']}/{name['method']}": config for config in METHOD_CONFIGS for name in config["name"]
}


def timeout_s(method: str) -> float:
    """Return how many seconds an RPC may take.

    >>> timeout_s("/llmrouter.v2.RoutingService/Route")
    10.0
    """
    return float(OF_METHOD[method]["timeout"].removesuffix("s"))


def may_repeat(method: str) -> bool:
    """Tell whether an RPC is tried again.

    >>> may_repeat("/llmrouter.v2.ProviderService/CreateProvider")
    False
    """
    return "retryPolicy" in OF_METHOD[method]


def of_channel() -> str:
    """Return what gRPC itself is to do of it: the retries."""
    kept = ("name", "retryPolicy")
    repeated = [{key: config[key] for key in kept} for config in METHOD_CONFIGS if "retryPolicy" in config]
    return json.dumps({"methodConfig": repeated})
