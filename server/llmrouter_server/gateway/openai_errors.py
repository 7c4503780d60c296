"""The gateway's own errors, in OpenAI's shape: what OpenAI's clients know how to read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter_server.errors import DomainError

_INTERNAL = 500
_STATUS: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_TYPE: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_UNNAMED = frozenset({"MODEL_NAME", "MODEL_DISABLED", "PROVIDER_DISABLED"})
"""Reasons of exclusion that leave nothing of a name: no such model, or none that is on."""


def error_body(error: DomainError) -> tuple[int, bytes, dict[str, str]]:
    """Return the HTTP status, the body and the headers that tell a client of an error.

    https://platform.openai.com/docs/guides/error-codes
    """
    status = _STATUS.get(error.code, _INTERNAL)
    code, message = error.reason.lower(), error.message
    param = error.violations[0].field if error.violations else None
    if error.reason == "NO_ELIGIBLE_MODEL":
        status, code, param, message = _no_eligible_model(error)
    kind = _TYPE.get(status, "server_error")
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if code == "budget_exceeded":
        kind = "insufficient_quota"
        headers["x-should-retry"] = "false"  # OpenAI's clients try every other 429 again at once
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return status, json.dumps(body).encode(), headers


def _no_eligible_model(error: DomainError) -> tuple[int, str, str | None, str]:
    """Return status, code, param and message: what the client can change, if there is such a thing.

    Whatever was left when the context was looked at had passed all before it, so a shorter prompt would be served.
    """
    excluded = error.metadata.keys()
    if "CONTEXT_TOO_SMALL" in excluded:
        return 400, "context_length_exceeded", "messages", f"the prompt is too long: {error.message}"
    if "OVER_BUDGET" in excluded:
        return 429, "budget_exceeded", None, f"the month's budget has no room for it: {error.message}"
    if "MODEL_NAME" in excluded and excluded <= _UNNAMED:
        return 404, "model_not_found", "model", f"there is no such model, or it is disabled: {error.message}"
    return 404, "no_eligible_model", None, error.message
