"""The whole document: every RPC that Envoy answers as JSON, and the data plane's part that is written by hand."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from llmrouter_server.runtime.openapi import comments
from llmrouter_server.runtime.openapi.failures import HEADERS, Failures
from llmrouter_server.runtime.openapi.schemas import Schemas

if TYPE_CHECKING:
    from llmrouter_server.runtime.openapi.comments import Schema
    from llmrouter_server.runtime.openapi.protos import Binding, Protos

_FILE = "google.api.HttpBody"
_ABOUT = """\
llmrouter decides, for each LLM request, which model of which provider to use.

**Names and numbers.** Fields are in `snake_case`; numbers are JSON numbers; times are RFC 3339 in UTC. An answer has \
every field, also those that are zero or empty, but for those that say when they are absent. Unknown fields and query \
parameters are refused. An absent field (or null) of an update leaves the value as it is.

**Errors** have one shape, `ApiError`. Branch on its reason, never on the message.

**Lists** come in pages: pass `next_page_token` as `page_token` until it is empty.

**Who you are.** A bearer token; or, in a browser, the cookie `session`. A cookie's request that changes something \
must come from the page's own origin (or one that the operator allows): browsers say so themselves, by `Origin`. \
Its body must be `application/json`.

**Requests.** A body of at most 1 MiB, in `application/json`. An `x-request-id` of up to 128 characters of \
`[A-Za-z0-9._-]` is kept, and every answer has one.
"""
_SECURITY: list[Schema] = [{"bearer": []}, {"session": []}]


def make_document(protos: Protos) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; the same protos give the same."""
    schemas, failures = Schemas(protos), Failures(protos)
    chat = json.loads(resources.files(__package__).joinpath("chat.json").read_text(encoding="utf-8"))
    paths: dict[str, dict[str, Schema]] = {}
    for binding in protos.bindings:
        paths.setdefault(binding.path, {})[binding.verb] = _operation(binding, protos, schemas, failures)
    services = dict.fromkeys(each.service for each in protos.bindings)
    return {
        "openapi": "3.1.1",
        "info": {"title": "llmrouter", "version": "v2", "description": _ABOUT, "license": _LICENSE},
        "servers": [{"url": "/", "description": "Where this document came from."}],
        "security": _SECURITY,
        "tags": [{"name": _tag(name), "description": protos.services[name]} for name in services] + chat["tags"],
        "paths": paths | chat["paths"],
        "components": {
            "securitySchemes": _SCHEMES,
            "headers": dict(HEADERS) | chat["components"]["headers"],
            "schemas": dict(sorted((schemas.components | failures.schemas() | chat["components"]["schemas"]).items())),
            "responses": dict(sorted((failures.responses | chat["components"]["responses"]).items())),
        },
    }


_LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_SCHEMES: Schema = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON Web Token of the operator's issuer.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "session",
        "description": "The same token in a cookie, for browsers. Looked at only when there is no `authorization`.",
    },
}


def _operation(binding: Binding, protos: Protos, schemas: Schemas, failures: Failures) -> Schema:
    title, description = comments.summary(binding.comment)
    operation: Schema = {
        "operationId": binding.name[0].lower() + binding.name[1:],
        "summary": title,
        "description": description,
        "tags": [_tag(binding.service)],
        "parameters": _parameters(binding, protos, schemas),
    }
    if binding.has_body:
        body = schemas.of_body(binding.request, without=binding.path_fields)
        fields = schemas.components[binding.request.rpartition(".")[2]]
        operation["requestBody"] = {
            "content": {"application/json": {"schema": body}},
            "required": bool(fields.get("required")),
        }
    operation["responses"] = _successes(binding, schemas) | failures.of(binding)
    return {name: value for name, value in operation.items() if value not in ("", [])}


def _parameters(binding: Binding, protos: Protos, schemas: Schemas) -> list[Schema]:
    found: list[Schema] = []
    for field in protos.messages[binding.request].field:
        in_path = field.name in binding.path_fields
        if in_path or not binding.has_body:
            schema, description = schemas.of_parameter(binding.request, field)
            place: Schema = {"name": field.name, "in": "path" if in_path else "query", "required": in_path}
            found.append(place | {"description": description, "schema": schema})
    return found


def _successes(binding: Binding, schemas: Schemas) -> dict[str, Schema]:
    headers: Schema = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if binding.response == _FILE:
        headers["content-disposition"] = {
            "description": "What to call the file.",
            "required": True,
            "schema": {"type": "string"},
        }
        content: Schema = {"text/csv": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": schemas.of_answer(binding.response)}}
    told = re.search(r"Answers HTTP ([^.]+)\.", binding.comment)
    statuses = re.findall(r"\b20\d\b", told[1]) if told else ["200"]
    meanings = {"200": "Done.", "201": "Created."}
    return {
        status: {"description": meanings[status], "headers": headers, "content": content} for status in sorted(statuses)
    }


def _tag(service: str) -> str:
    return service.removesuffix("Service")
