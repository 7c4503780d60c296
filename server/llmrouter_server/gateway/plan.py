"""What Envoy is told to do with a chat request: which models to try, in which order, and within which bounds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

PAYERS = ("USER_KEY", "PLATFORM")
MOST_CANDIDATES = 20
MOST_TOKENS = 1_000_000_000
"""As many as recording takes."""
MOST_MS = 86_400_000
MOST_UNDER_WAY = 10_000
"""Plans that are remembered: about 10 MB."""
MOST_KEPT = 4096
"""Candidates that are remembered, and what is made of them: plans repeat them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may serve the request."""

    provider_id: UUID
    provider: str
    model_id: UUID
    model: str
    """The provider's own name for it."""
    payer: str
    """USER_KEY or PLATFORM."""
    context: int
    """Tokens that it takes, prompt and answer together."""
    path: str
    """Of its chat endpoint, after the prefix of the provider's cluster."""
    head: str
    """How the request's body begins when it goes to this one."""

    @functools.lru_cache(maxsize=MOST_KEPT)  # noqa: B019 - bounded, and they are small
    def to_dict(self) -> Mapping[str, Any]:
        """Return it as part of the plan's, shared by all who ask."""
        return {
            "provider_id": str(self.provider_id),
            "provider": self.provider,
            "model_id": str(self.model_id),
            "model": self.model,
            "payer": self.payer,
            "context": self.context,
            "path": self.path,
            "head": self.head,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The metadata `llmrouter.plan`. Nothing in it is secret: it stands in the access log."""

    decision_id: UUID
    user_id: UUID
    decided_at: datetime
    stream: bool
    hide_usage: bool
    """Whether the client did not ask for the usage chunk of a stream."""
    prompt_tokens: int
    """By estimate."""
    prompt_bound: int
    """The prompt is never more."""
    output_bound: int
    """The answer is never more."""
    held: bool
    """Whether money is held for it."""
    first_byte_ms: int
    """How long each provider may take to begin its answer."""
    candidates: tuple[Candidate, ...]
    """In order of preference, at least one."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as Envoy and Postgres keep it."""
        return {**self.frame_to_dict(), "candidates": [candidate.to_dict() for candidate in self.candidates]}

    def frame_to_dict(self) -> dict[str, str | int | bool]:
        """Return it without its candidates."""
        return {
            "decision_id": str(self.decision_id),
            "user_id": str(self.user_id),
            "decided_at": self.decided_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "stream": self.stream,
            "hide_usage": self.hide_usage,
            "prompt_tokens": self.prompt_tokens,
            "prompt_bound": self.prompt_bound,
            "output_bound": self.output_bound,
            "held": self.held,
            "first_byte_ms": self.first_byte_ms,
        }

    @classmethod
    def from_dict(cls, mapping: object) -> Plan:
        """Read it again, numbers as whole numbers or floats; ValueError when it is no plan."""
        plan = _mapping(mapping)
        candidates = plan.get("candidates")
        if not isinstance(candidates, list | tuple) or not 1 <= len(candidates) <= MOST_CANDIDATES:
            raise ValueError("candidates: not a list of 1 to 20")
        return cls(
            decision_id=_uuid(plan, "decision_id"),
            user_id=_uuid(plan, "user_id"),
            decided_at=_moment(plan, "decided_at"),
            stream=_flag(plan, "stream"),
            hide_usage=_flag(plan, "hide_usage"),
            prompt_tokens=whole_number(plan.get("prompt_tokens"), most=MOST_TOKENS),
            prompt_bound=whole_number(plan.get("prompt_bound"), most=MOST_TOKENS),
            output_bound=whole_number(plan.get("output_bound"), most=MOST_TOKENS),
            held=_flag(plan, "held"),
            first_byte_ms=whole_number(plan.get("first_byte_ms"), most=MOST_MS),
            candidates=tuple(_candidate(_mapping(each)) for each in candidates),
        )


class PlansUnderWay:
    """Remembers plans of this process until their reports come, so that they need not be read from those again.

    A report of a plan that is not here (another process made it, or too many came after it) brings it along.
    """

    def __init__(self, most: int = MOST_UNDER_WAY) -> None:
        self._plans: dict[str, Plan] = {}
        self._most = most

    def add(self, plan: Plan) -> None:
        """Remember it, and forget the oldest when there are too many."""
        self._plans[str(plan.decision_id)] = plan
        if len(self._plans) > self._most:
            del self._plans[next(iter(self._plans))]

    def take(self, decision_id: str) -> Plan | None:
        """Return a plan and forget it; None: it is not here."""
        return self._plans.pop(decision_id, None)


def whole_number(value: object, *, most: float) -> int:
    """Read a whole number from 0 to `most`, which may have become a float; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value != int(value):
        raise ValueError("not a whole number in its range")
    return int(value)


def _candidate(candidate: Mapping[str, object]) -> Candidate:
    payer = _text(candidate, "payer")
    if payer not in PAYERS:
        raise ValueError("payer: neither USER_KEY nor PLATFORM")
    return Candidate(
        provider_id=_uuid(candidate, "provider_id"),
        provider=_text(candidate, "provider"),
        model_id=_uuid(candidate, "model_id"),
        model=_text(candidate, "model"),
        payer=payer,
        context=whole_number(candidate.get("context"), most=MOST_TOKENS),
        path=_text(candidate, "path"),
        head=_text(candidate, "head"),
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ValueError("not an object")  # noqa: TRY004 - whatever is wrong with a plan is one kind of error
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: not a text")  # noqa: TRY004
    return value


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: neither true nor false")  # noqa: TRY004
    return value


def _uuid(fields: Mapping[str, object], name: str) -> UUID:
    return UUID(_text(fields, name))


def _moment(fields: Mapping[str, object], name: str) -> datetime:
    moment = datetime.fromisoformat(_text(fields, name))
    if moment.tzinfo is None:
        raise ValueError(f"{name}: without a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name}: beyond the calendar") from None
