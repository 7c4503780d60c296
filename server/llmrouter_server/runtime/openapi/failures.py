"""How a call can fail: its reasons by HTTP status, from the comments and from what Envoy itself may answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.runtime.openapi.protos import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmrouter_server.runtime.openapi.comments import Schema
    from llmrouter_server.runtime.openapi.protos import Binding, Protos

_ENUM = f"{PACKAGE}.ErrorReason"
_PREFIX = "ERROR_REASON_"
_TYPE = "type.googleapis.com/google.rpc."
_NOT_YET = frozenset({400, 408, 431})
"""May be answered before Envoy has given the request its id."""

_EDGE = (
    (400, "MALFORMED_REQUEST"),
    (401, "UNAUTHENTICATED"),
    (403, "ROLE_REQUIRED"),
    (408, "DEADLINE_EXCEEDED"),
    (415, "UNSUPPORTED_MEDIA_TYPE"),
    (429, "RATE_LIMITED"),
    (431, "BODY_TOO_LARGE"),
    (500, "INTERNAL"),
    (501, "UNIMPLEMENTED"),
    (503, "UNAVAILABLE"),
    (504, "DEADLINE_EXCEEDED"),
)
"""What any call may meet."""
_NAMES: Mapping[int, str] = {
    400: "BadRequest",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
    431: "HeadersTooLarge",
    500: "Internal",
    501: "Unimplemented",
    503: "Unavailable",
    504: "DeadlineExceeded",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A value of ErrorReason, without its prefix."""

    name: str
    status: int
    """The HTTP status that its comment tells."""
    meaning: str


class Failures:
    """Answers with an error, as components: each status with the reasons that an operation may meet."""

    def __init__(self, protos: Protos) -> None:
        self.reasons = {reason.name: reason for reason in _read_reasons(protos)}
        self._about = protos.comments[_ENUM]
        self.responses: dict[str, Schema] = {}

    def of(self, binding: Binding) -> dict[str, Schema]:
        """Return references to an operation's errors by status."""
        found = set(_EDGE)
        for name in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)*\b", f"{binding.service_comment} {binding.comment}"):
            if name in self.reasons and name not in {reason for _, reason in _EDGE}:
                found.add((self.reasons[name].status, name))
        if binding.verb != "get":
            found.add((403, "ORIGIN_NOT_ALLOWED"))
        if binding.has_body:
            found.add((413, "BODY_TOO_LARGE"))
        if binding.path_fields:
            found.add((404, "UNKNOWN_PATH"))
        by_status: dict[int, set[str]] = {}
        for status, name in sorted(found):
            by_status.setdefault(status, set()).add(name)
        return {str(status): self._response(status, names) for status, names in by_status.items()}

    def _response(self, status: int, names: Iterable[str]) -> Schema:
        ordered = [name for name in self.reasons if name in names]
        key = _NAMES[status] + (f".{'.'.join(ordered)}" if len(ordered) > 1 or status in (404, 409) else "")
        if key not in self.responses:
            reason: Schema = {"properties": {"reason": {"enum": ordered}}, "required": ["reason"]}
            only: Schema = {"properties": {"details": {"contains": reason, "maxContains": 1}}}
            headers = {"x-request-id": _component("headers", "MaybeRequestId" if status in _NOT_YET else "RequestId")}
            if status in (429, 503):
                headers["retry-after"] = _component("headers", "RetryAfter")
            if status == 401:  # noqa: PLR2004 - Unauthorized
                headers["www-authenticate"] = _component("headers", "Challenge")
            self.responses[key] = {
                "description": "\n".join(f"- `{name}`: {self.reasons[name].meaning}" for name in ordered),
                "headers": headers,
                "content": {"application/json": {"schema": {"allOf": [_component("schemas", "ApiError"), only]}}},
            }
        return _component("responses", key)

    def schemas(self) -> dict[str, Schema]:
        """Return the shape of every error."""
        lines = "\n".join(f"- `{each.name}` ({each.status}): {each.meaning}" for each in self.reasons.values())
        return {
            "ErrorReason": {
                "type": "string",
                "description": f"{self._about}\n\n{lines}",
                "enum": list(self.reasons),
            },
            "ApiError": _object(
                "What went wrong: google.rpc.Status as JSON.",
                code=_whole("The gRPC status code.", low=1, high=16),
                message=_text("What went wrong, for people."),
                details={
                    "type": "array",
                    "description": "The reason comes first, then what else is known.",
                    "items": {
                        "anyOf": [_component("schemas", name) for name in ("ErrorInfo", "InvalidFields", "RetryInfo")]
                    },
                    "minItems": 1,
                },
            ),
            "ErrorInfo": _object(
                "Why it went wrong: what programs branch on.",
                **_typed("ErrorInfo"),
                reason=_component("schemas", "ErrorReason"),
                domain={"type": "string", "const": "llmrouter"},
                metadata={
                    "type": "object",
                    "description": "Facts that belong to the reason.",
                    "additionalProperties": {"type": "string"},
                },
            ),
            "InvalidFields": _object(
                "The fields that are wrong: google.rpc.BadRequest. With INVALID_FIELD.",
                **_typed("BadRequest"),
                field_violations={
                    "type": "array",
                    "description": "All that are wrong.",
                    "items": _component("schemas", "FieldViolation"),
                },
            ),
            "FieldViolation": _object(
                "A field that is wrong.",
                field=_text("Its path in the request, such as `routing_config.cost_weight`."),
                description=_text("What it must be."),
                reason=_text("Always empty."),
            ),
            "RetryInfo": _object(
                "When to try again. The header `retry-after` says the same.",
                **_typed("RetryInfo"),
                retry_delay={"type": "string", "description": "Seconds.", "pattern": r"^\d+(\.\d+)?s$"},
            ),
        }


HEADERS: Mapping[str, Schema] = {
    "RequestId": {
        "description": "The request's id: quote it when you report something. Your own, if you sent a sane one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "MaybeRequestId": {
        "description": "The request's id, if it got so far as to have one.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Challenge": {"description": "Always `Bearer`.", "required": True, "schema": {"type": "string", "const": "Bearer"}},
}


def _read_reasons(protos: Protos) -> Iterable[Reason]:
    for value in protos.enums[_ENUM].value:
        if value.number == 0:
            continue
        comment = protos.comments[f"{_ENUM}.{value.name}"]
        told = re.match(r"(.+?)\s*HTTP (\d{3})\.", comment)
        if told is None:
            raise ValueError(f"the comment of {value.name} does not tell its HTTP status")
        yield Reason(value.name.removeprefix(_PREFIX), int(told[2]), told[1])


def _component(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(about: str, /, **properties: Schema) -> Schema:
    return {"type": "object", "description": about, "properties": properties, "required": list(properties)}


def _typed(name: str) -> dict[str, Schema]:
    return {"@type": {"type": "string", "const": f"{_TYPE}{name}"}}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _whole(description: str, *, low: int, high: int) -> Schema:
    return {"type": "integer", "description": description, "minimum": low, "maximum": high}
