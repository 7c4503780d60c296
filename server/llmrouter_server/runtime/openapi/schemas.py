"""Messages and enums as schemas, printed and read as Envoy's transcoder does (see print_options in envoy/envoy.yaml).

Names as in the protos. An answer has every field but messages and `optional` fields that are not set; so it is the
comments that tell which of these may be absent. 64-bit integers would be strings; there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.runtime.openapi import comments
from llmrouter_server.runtime.openapi.protos import INPUT_ONLY, OUTPUT_ONLY, REQUIRED, ProtoField, behaviour

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from llmrouter_server.runtime.openapi.comments import Schema
    from llmrouter_server.runtime.openapi.protos import Message, Protos

_MAX_UINT32 = 2**32 - 1
_FREE_FORM: Schema = {"type": "object", "additionalProperties": True}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": _FREE_FORM,
}
_PLAIN: dict[int, Schema] = {
    ProtoField.TYPE_BOOL: {"type": "boolean"},
    ProtoField.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": _MAX_UINT32},
    ProtoField.TYPE_DOUBLE: {"type": "number"},
}


class Schemas:
    """Collects the components that what was asked for needs, by name."""

    def __init__(self, protos: Protos) -> None:
        self._protos = protos
        self._answers = self._reachable(each.response for each in protos.bindings)
        self.components: dict[str, Schema] = {}

    def of_answer(self, message: str) -> Schema:
        """Return a reference to a message as it is answered."""
        return self._message(message, is_request=False)

    def of_body(self, message: str, *, without: Collection[str]) -> Schema:
        """Return a reference to a request message as a body, without the fields that are in the path."""
        name = _short(message)
        if name not in self.components:
            self.components[name] = {}  # keeps its place, and ends recursion
            self.components[name] = self._object(message, is_request=True, without=without, is_root=True)
        return _reference(name)

    def of_parameter(self, message: str, field: ProtoField) -> tuple[Schema, str]:
        """Return schema and description of a request's field in the path or the query."""
        comment = self._protos.of_field(message, field.name)
        return self._value(field, comment, is_request=True) | comments.default(comment), comment

    def _message(self, message: str, *, is_request: bool) -> Schema:
        name = _short(message) + ("Input" if is_request and message in self._answers else "")
        if name not in self.components:
            self.components[name] = {}
            self.components[name] = self._object(message, is_request=is_request)
        return _reference(name)

    def _object(
        self, message: str, *, is_request: bool, without: Collection[str] = (), is_root: bool = False
    ) -> Schema:
        properties: dict[str, Schema] = {}
        required = []
        for field in self._protos.messages[message].field:
            if field.name in without:
                continue
            comment, kinds = self._protos.of_field(message, field.name), behaviour(field)
            value = self._value(field, comment, is_request=is_request)
            described = (_or_null(value) if is_request and REQUIRED not in kinds else value) | {"description": comment}
            if is_root:
                described |= comments.default(comment)
            if INPUT_ONLY in kinds:
                described["writeOnly"] = True
            if OUTPUT_ONLY in kinds:
                described["readOnly"] = True
            properties[field.name] = described
            if REQUIRED in kinds if is_request else self._is_always_there(field, comment):
                required.append(field.name)
        schema: Schema = {"type": "object", "description": self._protos.comments[message], "properties": properties}
        if required:
            schema["required"] = required
        if is_request:
            schema["additionalProperties"] = False  # request_check.lua refuses them
        return schema

    @staticmethod
    def _is_always_there(field: ProtoField, comment: str) -> bool:
        is_list = field.label == ProtoField.LABEL_REPEATED
        has_presence = field.proto3_optional or (field.type == ProtoField.TYPE_MESSAGE and not is_list)
        return not has_presence or not comments.may_be_absent(comment)

    def _value(self, field: ProtoField, comment: str, *, is_request: bool) -> Schema:
        if field.label != ProtoField.LABEL_REPEATED:
            return self._one(field, comment, is_request=is_request)
        entry = self._protos.messages.get(field.type_name.removeprefix("."))
        if entry is not None and entry.options.map_entry:
            return {"type": "object", "additionalProperties": self._one(entry.field[1], "", is_request=is_request)}
        return {"type": "array", "items": self._one(field, comment, is_request=is_request)}

    def _one(self, field: ProtoField, comment: str, *, is_request: bool) -> Schema:
        inner = field.type_name.removeprefix(".")
        if field.type == ProtoField.TYPE_STRING:
            return comments.text_schema(comment)
        if field.type in _PLAIN:
            return _PLAIN[field.type] | comments.number_range(comment)
        if field.type == ProtoField.TYPE_ENUM:
            return self._enum(inner, is_request=is_request)
        if field.type != ProtoField.TYPE_MESSAGE:
            raise ValueError(f"{field.name}: nobody has said how a {ProtoField.Type.Name(field.type)} looks in JSON")
        return dict(_WELL_KNOWN[inner]) if inner in _WELL_KNOWN else self._message(inner, is_request=is_request)

    def _enum(self, full_name: str, *, is_request: bool) -> Schema:
        name = _short(full_name) + ("Input" if is_request else "")
        if name not in self.components:
            told = {
                value.name: self._protos.comments[f"{full_name}.{value.name}"]
                for value in self._protos.enums[full_name].value
            }
            values = {value: comment for value, comment in told.items() if not comments.is_never_returned(comment)}
            lines = "\n".join(f"- `{value}`: {comment}" for value, comment in values.items())
            both = [*values, *(value.lower() for value in values)]
            self.components[name] = {
                "type": "string",
                "description": f"{self._protos.comments[full_name]}\n\n{lines}",
                "enum": both if is_request else list(values),  # see case_insensitive_enum_parsing
            }
        return _reference(name)

    def _reachable(self, roots: Iterable[str]) -> frozenset[str]:
        seen: set[str] = set()
        todo = list(roots)
        while todo:
            name = todo.pop()
            message: Message | None = self._protos.messages.get(name)
            if message is not None and name not in seen:
                seen.add(name)
                todo += [field.type_name.removeprefix(".") for field in message.field if field.type_name]
        return frozenset(seen)


def _or_null(schema: Schema) -> Schema:
    """In a request, null is as good as absent."""
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _short(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
