"""Writes envoy/request_fields.lua: which JSON fields each path of the API takes, from the protos' descriptors.

Envoy's transcoder drops unknown fields silently; envoy/request_check.lua refuses them by this table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool

from llmrouter_server.runtime.resources import resource_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

FREE_FORM = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any"}
HEADER = """\
-- Made by `make generate` from the protos; do not edit.
--
-- bindings: method, path (`*` stands for one segment), the message that the body holds, the fields bound by the path.
-- messages: each field's names; `free` takes any JSON, `message` an object of that message, `map` an object with any
-- keys, whose values are of that message (or plain, when empty); any other field is plain: it holds no object.
"""


def render_fields(descriptor_set: bytes) -> str:
    """Return the Lua table for a serialized FileDescriptorSet; the same input gives the same bytes."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    for file in files:
        pool.Add(file)
    methods = [
        method
        for file in files
        for service in pool.FindFileByName(file.name).services_by_name.values()
        for method in service.methods
    ]
    bindings, roots = [], []
    for method in methods:
        for verb, path, body in _bindings(method):
            root = _body_message(method.input_type, body)
            roots.extend([root] if root else [])
            segments = path.strip("/").split("/")
            bound = [part[1:].partition("}")[0].partition("=")[0] for part in segments if part.startswith("{")]
            pattern = ["*" + part.partition("}")[2] if part.startswith("{") else part for part in segments]
            bindings.append((verb, "/" + "/".join(pattern), root.full_name if root else "", bound))
    lines = [HEADER + "return {", "  bindings = {"]
    for verb, path, name, bound in sorted(bindings):
        names = "".join(f", {_lua(each)}" for each in sorted(bound))
        lines.append(f"    {{{_lua(verb)}, {_lua(path)}, {_lua(name)}{names}}},")
    lines += ["  },", "  messages = {"]
    for message in sorted(_reachable(roots), key=lambda each: str(each.full_name)):
        lines.append(f"    [{_lua(message.full_name)}] = {{")
        lines += [f"      {_field(field)}," for field in message.fields]
        lines.append("    },")
    return "\n".join([*lines, "  },", "}", ""])


def write_fields(envoy_dir: Path) -> None:
    """Write request_fields.lua beside the descriptor set that it is made from."""
    text = render_fields((envoy_dir / "llmrouter.binpb").read_bytes())
    (envoy_dir / "request_fields.lua").write_text(text, encoding="utf-8")


def _bindings(method: MethodDescriptor) -> Iterator[tuple[str, str, str]]:
    """Yield verb, path template and body selector of each HTTP binding of a method."""
    # The pool's own options know no extensions; a round trip through the generated class makes them readable.
    options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
    if not options.HasExtension(annotations_pb2.http):
        return
    first: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    for rule in (first, *first.additional_bindings):
        verb = rule.WhichOneof("pattern")
        if verb is None or verb == "custom":
            raise ValueError(f"{method.full_name}: only get, put, post, delete and patch bindings are supported")
        yield verb.upper(), getattr(rule, verb), rule.body


def _body_message(request: Descriptor, body: str) -> Descriptor | None:
    if body in {"", "*"}:
        return request if body else None
    inner = request.fields_by_name[body].message_type
    if inner is None:
        raise ValueError(f"{request.full_name}: the body field {body} is no message")
    return inner


def _reachable(roots: list[Descriptor]) -> set[Descriptor]:
    seen: set[Descriptor] = set()
    todo = list(roots)
    while todo:
        message = todo.pop()
        if message not in seen:
            seen.add(message)
            todo += [inner for field in message.fields if (inner := _checked_message(field)) is not None]
    return seen


def _checked_message(field: FieldDescriptor) -> Descriptor | None:
    """Return the message whose fields are checked inside this field: its own, or that of the map's values."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        message = message.fields_by_name["value"].message_type
    # Timestamp, Duration, FieldMask and the wrappers are plain values in JSON.
    return None if message is None or message.full_name.startswith("google.protobuf.") else message


def _field(field: FieldDescriptor) -> str:
    message = field.message_type
    is_map = message is not None and message.GetOptions().map_entry
    value = message.fields_by_name["value"].message_type if message is not None and is_map else message
    checked = _checked_message(field)
    names = _lua(field.name) + (f", {_lua(field.json_name)}" if field.json_name != field.name else "")
    if value is not None and value.full_name in FREE_FORM:
        return f"{{{names}, free = true}}"
    if is_map:
        return f"{{{names}, map = {_lua(checked.full_name if checked else '')}}}"
    return f"{{{names}, message = {_lua(checked.full_name)}}}" if checked else f"{{{names}}}"


def _lua(text: str) -> str:
    return json.dumps(text)  # for names and paths, which are printable ASCII, a JSON string is a Lua string


if __name__ == "__main__":
    write_fields(resource_dir("envoy"))
