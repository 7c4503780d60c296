"""The page that shows the document: plain HTML, readable without a script; envoy/docs.js adds the forms to try it."""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_BASE = "/api/v2/llm"
_PAGE = """\
<!doctype html>
<!-- Made by `make generate` from the protos; do not edit. -->
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API {version}</title>
<link rel="stylesheet" href="{base}/docs.css">
<script src="{base}/docs.js" defer></script>
<nav>
<h1><a href="#top">{title} <small>{version}</small></a></h1>
<input id="filter" type="search" placeholder="Filter, for instance key" aria-label="Filter" hidden>
{menu}
</nav>
<main id="top">
{body}
</main>
</html>
"""


def make_page(document: dict[str, Any]) -> str:
    """Return the page for a document."""
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        base=_BASE,
        menu="\n".join(_menu(document)),
        body="\n".join(_body(document)),
    )


def _by_tag(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[tuple[str, str, dict[str, Any]]]]]:
    for tag in document["tags"]:
        yield (
            tag,
            [
                (verb, path, operation)
                for path, item in document["paths"].items()
                for verb, operation in item.items()
                if tag["name"] in operation["tags"]
            ],
        )


def _menu(document: dict[str, Any]) -> Iterator[str]:
    for tag, operations in _by_tag(document):
        yield f"<h2>{escape(tag['name'])}</h2><ul>"
        for verb, _, operation in operations:
            name = operation["operationId"]
            yield f'<li><a href="#{name}"><b class="{verb}">{verb}</b> {name}</a>'
        yield "</ul>"
    yield '<h2><a href="#schemas">Schemas</a></h2>'


def _body(document: dict[str, Any]) -> Iterator[str]:
    yield f"<section class=about>{_prose(document['info']['description'])}"
    yield f'<p>The same for programs: <a href="{_BASE}/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
    yield '<form id="identity" hidden><label>Token to try with <input type="password" autocomplete="off"></label>'
    yield "<small>Kept in this page only. Without one, your session's cookie is sent.</small></form></section>"
    for tag, operations in _by_tag(document):
        yield f"<section><h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}"
        for verb, path, operation in operations:
            yield from _operation(document, verb, path, operation)
        yield "</section>"
    yield '<section><h2 id="schemas">Schemas</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<article id="{name}"><h3>{name}</h3>{_prose(schema.get("description", ""))}'
        if schema.get("properties"):
            yield from _fields(schema)
        elif "enum" in schema and schema["description"].count("`") < len(schema["enum"]):
            yield f"<p>{_type(schema)}</p>"
        yield "</article>"
    yield "</section>"


def _operation(document: dict[str, Any], verb: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    name = operation["operationId"]
    yield f'<article id="{name}" class="operation"><h3><b class="{verb}">{verb}</b> <code>{_path(path)}</code></h3>'
    yield f"<p><strong>{_words(operation['summary'])}</strong></p>{_prose(operation.get('description', ''))}"
    if parameters := operation.get("parameters"):
        yield "<h4>Parameters</h4>"
        properties = {each["name"]: each["schema"] | {"description": each["description"]} for each in parameters}
        required = [each["name"] for each in parameters if each["required"]]
        yield from _fields({"properties": properties, "required": required})
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        fields = _resolved(document, schema)
        yield f"<h4>Body: {_type(schema)}</h4>"
        if fields.get("properties"):
            yield from _fields(fields)
    yield "<h4>Answers</h4><table>"
    for status, each in operation["responses"].items():
        response = _resolved(document, each)
        types = ", ".join(
            _type(content["schema"]) if "$ref" in content["schema"] else escape(kind)
            for kind, content in response["content"].items()
            if status < "400" or kind != "application/json"
        )
        kind = "good" if status < "400" else "bad"
        told = _prose(response["description"]) + (f"<p>{types}</p>" if types else "")
        yield f'<tr><td class="{kind}">{status}</td><td>{told}</td></tr>'
    yield f'</table><div class="try" data-operation="{name}"></div></article>'


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield "<table>"
    for name, each in schema["properties"].items():
        must = "" if name in required else ' <i title="may be absent">?</i>'
        description = _prose(each.get("description", ""))
        yield f"<tr><td><code>{escape(name)}</code>{must}</td><td>{_type(each)}</td><td>{description}</td></tr>"
    yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in few words, with links."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    if values := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return ", ".join(f"<code>{escape(json.dumps(each))}</code>" for each in values)
    types = schema.get("type", "anything")
    name = next(each for each in types if each != "null") if isinstance(types, list) else types
    inner = schema.get("items") or schema.get("additionalProperties")
    if isinstance(inner, dict):
        return f"{'list of' if name == 'array' else 'map to'} {_type(inner)}"
    return " ".join((escape(schema.get("format", name)), *_limits(schema)))


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    if schema.get("maximum") is not None and schema["maximum"] != 2**32 - 1:
        yield f"{schema['minimum']:,} to {schema['maximum']:,}"
    if "maxLength" in schema:
        yield f"of {schema.get('minLength', 0)} to {schema['maxLength']:,} characters"
    if "default" in schema:
        yield f"= <code>{escape(str(schema['default']))}</code>"


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    _, kind, name = value["$ref"].removeprefix("#/").split("/")
    found: dict[str, Any] = document["components"][kind][name]
    return found


def _path(path: str) -> str:
    return re.sub(r"({\w+})", r"<i>\1</i>", escape(path))


def _prose(text: str) -> str:
    """Return the little Markdown of the descriptions as HTML: paragraphs, lists, `code` and **strong**."""
    parts = []
    for paragraph in filter(None, text.split("\n\n")):
        if paragraph.startswith("- "):
            items = "".join(f"<li>{_words(line.removeprefix('- '))}" for line in paragraph.split("\n"))
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(f"<p>{_words(paragraph)}</p>")
    return "".join(parts)


def _words(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)
