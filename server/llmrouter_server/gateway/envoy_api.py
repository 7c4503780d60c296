"""Envoy's own protobuf messages, as the very Envoy that we run has them.

`envoy_api.binpb` holds their descriptors, taken out of the pinned Envoy's binary by `make generate`. They live in a
pool of their own: the published packages of these messages would put theirs into the `envoy` package, where the binary
is.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()


def _load() -> None:
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(resources.files(__package__).joinpath("envoy_api.binpb").read_bytes())
    for file in files.file:
        POOL.Add(file)


def message(full_name: str) -> Any:  # noqa: ANN401 - a class that is made at run time
    """Return the class of a message; KeyError when the descriptors lack it."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


_load()

ProcessingRequest = message("envoy.service.ext_proc.v3.ProcessingRequest")
ProcessingResponse = message("envoy.service.ext_proc.v3.ProcessingResponse")
StreamAccessLogsMessage = message("envoy.service.accesslog.v3.StreamAccessLogsMessage")
StreamAccessLogsResponse = message("envoy.service.accesslog.v3.StreamAccessLogsResponse")
DiscoveryRequest = message("envoy.service.discovery.v3.DiscoveryRequest")
DiscoveryResponse = message("envoy.service.discovery.v3.DiscoveryResponse")
Cluster = message("envoy.config.cluster.v3.Cluster")
Value = message("google.protobuf.Value")
