"""Domain errors. Each knows its reason (see error_reason.proto) and its gRPC code; one interceptor sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request, by its path in the request, for instance `routing_config.cost_weight`."""

    field: str
    description: str


@dataclass(eq=False, slots=True)
class DomainError(Exception):
    """An error that the caller is told about. The message must hold no internals, SQL or secrets."""

    reason: str
    """A value of ErrorReason without its prefix."""
    code: grpc.StatusCode
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return self.message


def invalid(*violations: tuple[str, str]) -> DomainError:
    """INVALID_FIELD: the fields that are wrong, each as (path, what is wrong with it)."""
    message = "; ".join(f"{path}: {description}" for path, description in violations)
    return DomainError(
        "INVALID_FIELD",
        grpc.StatusCode.INVALID_ARGUMENT,
        message,
        violations=tuple(FieldViolation(*violation) for violation in violations),
    )


def malformed_request() -> DomainError:
    """MALFORMED_REQUEST: the bytes of the request are not its message."""
    return DomainError(
        "MALFORMED_REQUEST", grpc.StatusCode.INVALID_ARGUMENT, "the request is not the message that this RPC takes"
    )


def not_found(resource: str) -> DomainError:
    """RESOURCE_NOT_FOUND: there is no such resource, or it is not the caller's."""
    return DomainError(
        "RESOURCE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, f"there is no such {resource}", {"resource": resource}
    )


def already_exists(resource: str, name: str, value: str) -> DomainError:
    """ALREADY_EXISTS: another resource of the kind has this value in the field `name`."""
    return DomainError(
        "ALREADY_EXISTS",
        grpc.StatusCode.ALREADY_EXISTS,
        f"there is already a {resource} with this {name}",
        {"field": name, "value": value},
    )


def etag_mismatch(resource: str) -> DomainError:
    """ETAG_MISMATCH: the resource was changed since the etag that was given."""
    return DomainError(
        "ETAG_MISMATCH",
        grpc.StatusCode.ABORTED,
        f"the {resource} was changed meanwhile: read it again",
        {"resource": resource},
    )


def budget_exceeded(budget_usd: Decimal, spent_usd: Decimal, retry_after_s: int) -> DomainError:
    """BUDGET_EXCEEDED: the month's budget is used up; the next month begins after so many seconds."""
    budget, spent = f"{budget_usd.normalize():f}", f"{spent_usd.normalize():f}"
    return DomainError(
        "BUDGET_EXCEEDED",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the month's budget of {budget} US dollars is used up",
        {"monthly_budget_usd": budget, "spent_usd": spent},
        retry_after_s=retry_after_s,
    )


def rate_limited(message: str, retry_after_s: int) -> DomainError:
    """RATE_LIMITED: try again after so many seconds."""
    return DomainError("RATE_LIMITED", grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_s=retry_after_s)


def unauthenticated(message: str) -> DomainError:
    """UNAUTHENTICATED: no valid token."""
    return DomainError("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED, message)


def role_required(message: str) -> DomainError:
    """ROLE_REQUIRED: the token's roles do not allow the call."""
    return DomainError("ROLE_REQUIRED", grpc.StatusCode.PERMISSION_DENIED, message)


def no_eligible_model(counts: Mapping[str, int]) -> DomainError:
    """NO_ELIGIBLE_MODEL: how many models each reason of exclusion took."""
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return DomainError(
        "NO_ELIGIBLE_MODEL",
        grpc.StatusCode.NOT_FOUND,
        f"no model may serve this request; excluded: {why or 'the catalogue is empty'}",
        {reason: str(count) for reason, count in sorted(counts.items())},
    )


def unavailable() -> DomainError:
    """UNAVAILABLE: the database is away or the server is draining."""
    return DomainError(
        "UNAVAILABLE",
        grpc.StatusCode.UNAVAILABLE,
        "the service is unavailable, try again shortly",
        retry_after_s=1,
    )


def deadline_exceeded() -> DomainError:
    """DEADLINE_EXCEEDED: the answer was not ready in time."""
    return DomainError(
        "DEADLINE_EXCEEDED",
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the deadline passed before the answer was ready",
    )


def internal() -> DomainError:
    """INTERNAL: a fault of the service; the log has it under the request id."""
    return DomainError(
        "INTERNAL",
        grpc.StatusCode.INTERNAL,
        "internal error; quote the request id when you report it",
    )


def unimplemented() -> DomainError:
    """UNIMPLEMENTED: there is no such RPC on this server."""
    return DomainError("UNIMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED, "no such RPC")


def no_room_in_budget(budget_usd: Decimal, worst_usd: Decimal, fits_tokens: int | None) -> DomainError:
    """BUDGET_EXCEEDED: what is left of the month's budget does not cover the most that the request could cost."""
    budget, worst = f"{budget_usd.normalize():f}", f"{worst_usd.normalize():f}"
    advice = f"; it would fit with max_tokens of at most {fits_tokens}" if fits_tokens else ""
    return DomainError(
        "BUDGET_EXCEEDED",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request could cost up to {worst} US dollars, which the month's budget of {budget} does not cover{advice}",
        {"monthly_budget_usd": budget, "worst_cost_usd": worst},
    )
