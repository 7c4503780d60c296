"""Takes the descriptors of Envoy's own messages out of its binary: `python -m llmrouter_server.runtime.envoy_messages`.

A program with protobuf's generated C++ holds the descriptor of each of its files, serialised. So what is found fits the
very Envoy that runs, and no package of them is needed: the published one installs into the `envoy` package too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from llmrouter_server.runtime.envoy_config import envoy_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOTS = (
    "envoy/service/ext_proc/v3/external_processor.proto",
    "envoy/service/accesslog/v3/als.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
)
"""What the gateway speaks; with everything that they import."""
TARGET = Path(__file__).parents[1] / "gateway" / "envoy_api.binpb"

_BEGINNING = re.compile(rb"\x0a(.)([a-zA-Z0-9_./-]+\.proto)", re.DOTALL)
"""A FileDescriptorProto begins with its name: the tag of field 1, the length, the text."""
_FIELDS = frozenset({*range(1, 13), 14, 15})
_REPEATED_LATE = frozenset({3, 10, 11})
"""Dependencies and their kinds: the only fields that may stand out of order."""
_LONGEST_FIELD = 2_000_000
_VARINT, _BYTES = 0, 2


def main() -> None:
    """Write the descriptors that the gateway needs."""
    known = _find(envoy_binary().read_bytes())
    files = descriptor_pb2.FileDescriptorSet(file=[known[name] for name in _with_imports(known)])
    TARGET.write_bytes(files.SerializeToString(deterministic=True))


def _with_imports(known: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> list[str]:
    """Return the roots and all that they import, each after its own imports."""
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for imported in known[name].dependency:
                add(imported)
            ordered[name] = None

    for root in ROOTS:
        add(root)
    return list(ordered)


def _find(program: bytes) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Return all the descriptors in a program, by file name: of each name the largest that can be read."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for match in _BEGINNING.finditer(program):
        length = match[1][0]
        name = program[match.start(2) : match.start(2) + length]
        if not name.endswith(b".proto"):
            continue
        file = descriptor_pb2.FileDescriptorProto()
        try:
            file.ParseFromString(program[match.start() : _end(program, match.start())])
        except DecodeError:
            continue
        if file.name == name.decode() and (file.name not in found or found[file.name].ByteSize() < file.ByteSize()):
            found[file.name] = file
    return found


def _end(program: bytes, start: int) -> int:
    """Return where a descriptor ends: before the first bytes that cannot be its next field."""
    position, last = start, 0
    while True:
        try:
            numbers = _numbers(program, position)
            tag, after = next(numbers)
            field, kind = tag >> 3, tag & 7
            is_in_order = field >= last or field in _REPEATED_LATE
            is_new_file = field == 1 and position != start
            if field not in _FIELDS or not is_in_order or is_new_file or kind not in (_VARINT, _BYTES):
                return position
            value, after = next(numbers)
        except (IndexError, StopIteration):
            return position
        if kind == _BYTES:
            if value > _LONGEST_FIELD:
                return position
            after += value
        if field not in _REPEATED_LATE:
            last = field
        position = after


def _numbers(program: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Read varints one after another: each with where it ends."""
    while True:
        value = shift = 0
        while True:
            byte = program[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the last one's high bit is clear
                break
            shift += 7
            if shift > 63:  # noqa: PLR2004 - 64 bits at most
                return
        yield value, position


if __name__ == "__main__":
    main()
