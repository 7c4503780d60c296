"""What a call can fail with. Each exception carries the server's reason and all it said with it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf import any_pb2

Trailing: TypeAlias = "Iterable[tuple[str, str | bytes]]"

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
DOMAIN = "llmrouter"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request, by its path, for instance `routing_config.cost_weight`."""

    field: str
    description: str


@dataclass(eq=False, slots=True)
class LlmrouterError(Exception):
    """A call failed. Branch on the class or on `reason`, never on the message."""

    message: str
    reason: str = ""
    """A value of ErrorReason without its prefix, or empty when the answer did not come from the server itself."""
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    fields: tuple[FieldViolation, ...] = ()
    """The wrong fields, for InvalidField."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What else the reason says, for instance how many models were excluded for what."""
    retry_after: float | None = None
    """Seconds to wait before the next try, when the server says so."""
    request_id: str = ""
    """Quote it to the operator: the server's log has it."""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name}, request {self.request_id or 'unknown'})"

    def __reduce__(self) -> tuple[object, ...]:
        """Let it pass from process to process."""
        told = (self.message, self.reason, self.code, self.fields, self.metadata, self.retry_after, self.request_id)
        return type(self), told


class InvalidField(LlmrouterError):  # noqa: N818 - named after its reason, like all below
    """A field's value is wrong; `fields` names each one."""


class Unauthenticated(LlmrouterError):  # noqa: N818
    """The token is missing, expired or not valid."""


class RoleRequired(LlmrouterError):  # noqa: N818
    """The token's roles do not allow the call."""


class NotFound(LlmrouterError):  # noqa: N818
    """There is no such thing, or it is not yours."""


class NoEligibleModel(NotFound):
    """No model may serve the request; `metadata` counts the models behind each reason of exclusion."""


class AlreadyExists(LlmrouterError):  # noqa: N818
    """The name is taken."""


class EtagMismatch(LlmrouterError):  # noqa: N818
    """The thing was changed since its etag was read: read it again."""


class RateLimited(LlmrouterError):  # noqa: N818
    """Too many requests; try again after `retry_after` seconds."""


class BudgetExceeded(RateLimited):
    """The month's budget is used up; `retry_after` tells when the next month begins."""


class RequestTooLarge(LlmrouterError):  # noqa: N818
    """The request is larger than the server takes (1 MiB): send less at once."""


class Unimplemented(LlmrouterError):  # noqa: N818
    """The server does not know this RPC: it is older than this client, or no llmrouter."""


class Unavailable(LlmrouterError):  # noqa: N818
    """The service cannot be reached or cannot answer now."""


class DeadlineExceeded(LlmrouterError):  # noqa: N818
    """The answer did not come in time."""


class InternalError(LlmrouterError):
    """A fault of the service."""


_BY_REASON: dict[str, type[LlmrouterError]] = {
    "INVALID_FIELD": InvalidField,
    "MALFORMED_REQUEST": InvalidField,
    "UNAUTHENTICATED": Unauthenticated,
    "ROLE_REQUIRED": RoleRequired,
    "RESOURCE_NOT_FOUND": NotFound,
    "NO_ELIGIBLE_MODEL": NoEligibleModel,
    "ALREADY_EXISTS": AlreadyExists,
    "ETAG_MISMATCH": EtagMismatch,
    "RATE_LIMITED": RateLimited,
    "BUDGET_EXCEEDED": BudgetExceeded,
    "BODY_TOO_LARGE": RequestTooLarge,
    "UNIMPLEMENTED": Unimplemented,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INTERNAL": InternalError,
}
# For errors made on the way (no connection, the client's own deadline) and for reasons of a newer server.
_BY_CODE: dict[grpc.StatusCode, type[LlmrouterError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidField,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: RoleRequired,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: EtagMismatch,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by a server that ended; who cancels a call is told otherwise
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}


_NO_GRPC = "Received http2 header with status"
"""What gRPC itself says of a port that speaks plain HTTP, as the one of the JSON API does."""
_TOO_LARGE = "message larger than max"
"""What gRPC itself says, on either side, and with the same code as of a rate limit."""


def new_request_id() -> str:
    """Return an id for one call, for both sides' logs."""
    return str(uuid.uuid4())


def error_of(
    code: grpc.StatusCode,
    message: str | None,
    trailing_metadata: Trailing | None,
    request_id: str,
) -> LlmrouterError:
    """Make the exception of a failed call from what gRPC says of it."""
    trailing = dict(trailing_metadata or ())
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    has_retry = False
    for detail in _details(trailing.get(DETAILS_KEY)):
        detail.Unpack(info)
        detail.Unpack(bad)
        has_retry = detail.Unpack(retry) or has_retry
    reason = info.reason if info.domain == DOMAIN else ""
    told = trailing.get(REQUEST_ID_KEY, request_id)
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, LlmrouterError)
    if kind is RateLimited and not reason and _TOO_LARGE in (message or ""):
        kind = RequestTooLarge
    if code is grpc.StatusCode.CANCELLED and not reason:
        message = f"the server ended before it answered: {message or code.name}"
    if _NO_GRPC in (message or ""):
        message = f"{message}; is this the port of gRPC?"
    return kind(
        message=message or code.name,
        reason=reason,
        code=code,
        fields=tuple(FieldViolation(each.field, each.description) for each in bad.field_violations),
        metadata=dict(info.metadata),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
        request_id=told if isinstance(told, str) else request_id,
    )


def _details(encoded: str | bytes | None) -> Iterable[any_pb2.Any]:
    status = status_pb2.Status()
    if isinstance(encoded, bytes):
        try:
            status.ParseFromString(encoded)
        except DecodeError:
            return ()  # a proxy's, perhaps; the code still tells the kind of error
    details: Iterable[any_pb2.Any] = status.details
    return details
