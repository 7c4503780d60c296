"""What route_and_call hands to the program and gives back: attempts, usage, outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from llmrouter.errors import LlmrouterError
from llmrouter.v2.usage_pb2 import AttemptFailure, Payer

if TYPE_CHECKING:
    from llmrouter.v2.routing_service_pb2 import RouteResponse, ScoredModel
    from llmrouter.v2.usage_service_pb2 import RecordUsageRequest

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer has used, in tokens, each 0 to 1,000,000,000."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """Those of the input tokens that the provider had in its cache."""
    reasoning_tokens: int = 0
    """Those of the output tokens that went into reasoning."""
    is_estimated: bool = False
    """True when the answer did not tell them."""


MAX_TOKENS = 1_000_000_000
UNTOLD = Usage(input_tokens=0, output_tokens=0, is_estimated=True)


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt:
    """One try at one model: everything that the provider's call needs."""

    number: int
    """From 1."""
    decision: RouteResponse
    model: ScoredModel
    """The model to use, with its scores."""
    base_url: str
    """Of the provider's OpenAI-compatible API, or of the gateway."""
    api_key: str | None = field(default=None, repr=False)
    """The provider's key with `credentials=True`, None when there is none; with a gateway, llmrouter's own token."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """To send along: with a gateway, on whose behalf a service asks."""
    payer: Payer.ValueType = Payer.PAYER_UNSPECIFIED
    """Whose key it is."""
    request_id: str
    """Under which the attempt's usage is recorded."""
    _is_final: bool = field(default=False, init=False, repr=False)

    @property
    def model_name(self) -> str:
        """The provider's own identifier of the model: what to send it."""
        return self.model.model_name

    @property
    def provider_name(self) -> str:
        """Name of the provider."""
        return self.model.provider_name

    def commit(self) -> None:
        """Stay with this model from now on: the answer has begun to reach the user. A failure is raised as it is."""
        self._is_final = True

    @property
    def is_final(self) -> bool:
        """Whether it was committed to."""
        return self._is_final


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt, what it raised, and whose fault that is."""

    attempt: Attempt
    error: Exception
    failure: AttemptFailure.ValueType

    def __str__(self) -> str:
        fault = AttemptFailure.Name(self.failure).removeprefix("ATTEMPT_FAILURE_")
        return f"{self.attempt.model_name} of {self.attempt.provider_name}: {fault} ({type(self.error).__name__})"


@dataclass(frozen=True, slots=True)
class Unreported:
    """Usage that could not be recorded, and why: record it again, under the same request id it counts once."""

    request: RecordUsageRequest
    error: Exception
    """A LlmrouterError, or what the client's token function raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Generic[T]):
    """What came of route_and_call."""

    answer: T
    """What the provider's call returned."""
    attempt: Attempt
    """The one that succeeded."""
    failures: tuple[FailedAttempt, ...] = ()
    """Those before it."""
    usage: Usage = UNTOLD
    cost_usd: float | None = None
    """What the answer cost; None when its usage was not recorded by this client."""
    unreported: tuple[Unreported, ...] = ()
    """What could not be recorded; logged as a warning, too."""


@dataclass(eq=False, slots=True)
class AllAttemptsFailed(LlmrouterError):  # noqa: N818 - reads like the others
    """Every model of the decision failed; `failures` holds each one's error, in order. They are its cause, too."""

    failures: tuple[FailedAttempt, ...] = ()
    unreported: tuple[Unreported, ...] = ()

    def __str__(self) -> str:
        return self.message


def usage_of(answer: object) -> Usage | None:
    """Read the usage of an answer in OpenAI's or Anthropic's shape, an object or a mapping; None when it tells none.

    >>> usage_of({"usage": {"prompt_tokens": 19, "completion_tokens": 10}})
    Usage(input_tokens=19, output_tokens=10, cached_tokens=0, reasoning_tokens=0, is_estimated=False)
    """
    told = _part(answer, "usage")
    given, made = _number(told, "prompt_tokens", "input_tokens"), _number(told, "completion_tokens", "output_tokens")
    if given is None or made is None:
        return None
    # Anthropic counts what the cache held, and what went into it, beside the input; OpenAI as a part of it.
    read, written = _number(told, "cache_read_input_tokens") or 0, _number(told, "cache_creation_input_tokens") or 0
    input_details = _part(told, "prompt_tokens_details") or _part(told, "input_tokens_details")
    output_details = _part(told, "completion_tokens_details") or _part(told, "output_tokens_details")
    return Usage(
        input_tokens=given + read + written,
        output_tokens=made,
        cached_tokens=read or _number(input_details, "cached_tokens") or 0,
        reasoning_tokens=_number(output_details, "reasoning_tokens") or 0,
    )


def _part(thing: object, name: str) -> object:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _number(thing: object, *names: str) -> int | None:
    values = (_part(thing, name) for name in names)
    return next((value for value in values if type(value) is int and 0 <= value <= MAX_TOKENS), None)
