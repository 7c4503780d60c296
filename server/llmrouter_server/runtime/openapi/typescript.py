"""The TypeScript client's types and operations, from the document.

Our own, because it is little, and because `make generate` must need nothing but Python. A request is one flat object,
as in the protos; all that a call needs to know is a verb and a path: fields that the path does not take go into the
body of a POST or PUT, else into the query.
"""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = """\
// Made by `make generate` from the protos; do not edit.
import { download, operation, paged } from "./call.js";
"""
_CHAT = "Chat"
_WIDTH = 110


def make_typescript(document: dict[str, Any]) -> str:
    """Return the module with an interface for each schema and a function for each operation."""
    schemas = {name: schema for name, schema in document["components"]["schemas"].items() if not name.startswith(_CHAT)}
    operations = [
        (verb, path, operation)
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if _CHAT not in operation["tags"]
    ]
    parts = [_HEADER]
    parts += ["\n".join(_schema(name, schema)) for name, schema in schemas.items() if name not in _bodies(operations)]
    parts += ["\n".join(_request(document, operation)) for *_, operation in operations]
    parts += ["\n".join(_operation(document, *each)) for each in operations]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _bodies(operations: list[tuple[str, str, dict[str, Any]]]) -> set[str]:
    return {_body(operation).rpartition("/")[2] for *_, operation in operations}


def _body(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {"content": {}})["content"]
    return str(content["application/json"]["schema"]["$ref"]) if content else ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield from _comment(schema["description"])
    if "enum" in schema:
        yield f"export type {name} = {_type(schema)};"
    else:
        yield f"export interface {name} {{"
        yield from _fields(schema.get("properties", {}), schema.get("required", []))
        yield "}"


def _request(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """Yield the interface of a request: the fields of path, query and body."""
    fields, required = {}, []
    for each in operation.get("parameters", []):
        fields[each["name"]] = each["schema"] | {"description": each["description"]}
        required += [each["name"]] if each["required"] else []
    if body := _body(operation):
        schema = document["components"]["schemas"][body.rpartition("/")[2]]
        fields |= schema["properties"]
        required += schema.get("required", [])
    yield f"/** Request of {operation['operationId']}. */"
    yield f"export interface {_request_name(operation)} {{"
    yield from _fields(fields, required)
    yield "}"


def _operation(document: dict[str, Any], verb: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    name, request = operation["operationId"], _request_name(operation)
    _, content = next(iter(operation["responses"].items()))
    kind, told = next(iter(content["content"].items()))
    yield from _comment(f"{operation['summary']}.\n\n{operation.get('description', '')}".strip())
    arguments = f"{json.dumps(verb.upper())}, {json.dumps(path)}"
    if kind != "application/json":
        yield f"export const {name} = /* @__PURE__ */ download<{request}>({arguments});"
        return
    response = _type(told["schema"])
    fields = document["components"]["schemas"][response]["properties"]
    if "next_page_token" not in fields:
        yield f"export const {name} = /* @__PURE__ */ operation<{request}, {response}>({arguments});"
        return
    [rows] = [field for field, schema in fields.items() if schema.get("type") == "array"]
    types = f"{request}, {response}, {json.dumps(rows)}"
    yield f"export const {name} = /* @__PURE__ */ paged<{types}>({arguments}, {json.dumps(rows)});"


def _request_name(operation: dict[str, Any]) -> str:
    name = operation["operationId"]
    return f"{name[0].upper()}{name[1:]}Request"


def _fields(fields: dict[str, Any], required: list[str]) -> Iterator[str]:
    for name, schema in fields.items():
        for line in _comment(schema.get("description", "")):
            yield f"  {line}"
        key = name if re.fullmatch(r"\w+", name) else json.dumps(name)
        yield f"  {key}{'' if name in required else '?'}: {_type(schema)};"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(each) for each in schema["anyOf"] if each.get("const") != ""))
    if values := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return " | ".join(json.dumps(each) for each in values)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " | ".join(_plain(kind, schema) for kind in kinds)


def _plain(kind: str, schema: dict[str, Any]) -> str:
    if kind == "array":
        element = _type(schema["items"])
        return f"({element})[]" if "|" in element else f"{element}[]"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"Record<string, {_type(inner) if isinstance(inner, dict) else 'unknown'}>"
    return "number" if kind == "integer" else kind


def _comment(text: str) -> Iterator[str]:
    if not text:
        return
    lines = [line for part in text.replace("*/", "* /").split("\n") for line in textwrap.wrap(part, _WIDTH) or [""]]
    if len(lines) == 1:
        yield f"/** {lines[0]} */"
        return
    yield "/**"
    for line in lines:
        yield f" * {line}".rstrip()
    yield " */"
