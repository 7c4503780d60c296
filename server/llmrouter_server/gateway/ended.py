"""A chat request that is over: what Envoy tells of it, and how its attempts are recorded. Plain functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import uuid_utils.compat as uuid_utils

from llmrouter_server.gateway import verdict
from llmrouter_server.gateway.plan import MOST_MS, MOST_TOKENS, Candidate, Plan, whole_number
from llmrouter_server.usage.record import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmrouter_server.gateway.verdict import Verdict

MOST_ATTEMPTS = 200
MOST_EXACT = 2**53
BYTES_A_TOKEN = 4
BYTES_AN_EVENT = 250
"""Of a stream, where nothing was counted: a token, and what is around it."""
LOST = "no report came from the gateway"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a provider. Times are milliseconds since the epoch, by Envoy's clock."""

    number: int
    """From 1."""
    candidate: Candidate
    outcome: str
    """See gateway.verdict."""
    started_ms: int
    ended_ms: int | None
    """When its answer began, or it failed; None: neither was seen."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Stream:
    """How far a stream had come when that was noted last: at its end, else at its first, second, fourth … event."""

    events: int
    size_bytes: int
    ended: str | None
    """`done`, `finished` (without [DONE]) or `cut`; None: it was still running."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over."""

    plan: Plan
    attempts: tuple[Attempt, ...]
    """In the order of their numbers."""
    status: int
    """That the client got; 0: none."""
    flags: frozenset[str]
    """Envoy's short names for what went wrong."""
    usage: Usage | None
    stream: Stream | None
    body_bytes: int
    """Of the answer, as sent to the client."""
    duration_ms: int


class _Tokens(NamedTuple):
    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    is_estimated: bool = False


def ended_from(
    metadata: Mapping[str, object],
    *,
    status: int,
    flags: Iterable[str],
    body_bytes: int,
    duration_ms: int,
    plan: Plan | None = None,
) -> Ended | None:
    """Read what Envoy tells of a request; None when it is none of ours, or an attempt cannot be read.

    What such an attempt cost is not known, so the request is left to expire into an estimate. `plan`: the metadata
    need not have it.
    """
    try:
        plan = plan or Plan.from_dict(metadata.get("llmrouter.plan"))
        attempts = _attempts(plan, metadata.get("llmrouter.attempts"))
    except ValueError:
        return None
    return Ended(
        plan=plan,
        attempts=attempts,
        status=status,
        flags=frozenset(flags),
        usage=_usage(metadata.get("llmrouter.usage")),
        stream=_stream(metadata.get("llmrouter.stream")),
        body_bytes=max(0, body_bytes),
        duration_ms=max(0, duration_ms),
    )


def reports_of(ended: Ended) -> list[Report]:
    """Make the report of each attempt. All happened when the plan was made: one request's money is of one month."""
    pairs = zip_longest(ended.attempts, ended.attempts[1:])
    return [_report(ended, attempt, later) for attempt, later in pairs]


def estimate_of_lost(plan: Plan) -> Report:
    """Make the report of a request that nobody reported: its first attempt, at worst when money is held for it."""
    tokens = _Tokens(
        plan.prompt_bound if plan.held else min(plan.prompt_tokens, plan.prompt_bound),
        plan.output_bound if plan.held else 0,
        is_estimated=True,
    )
    return _make_report(plan, 1, plan.candidates[0], verdict.Verdict(LOST), tokens, latency_ms=None)


def _report(ended: Ended, attempt: Attempt, later: Attempt | None) -> Report:
    judged = _verdict(ended, attempt, later)
    tokens = _tokens(ended, is_last=later is None) if judged.has_begun else _Tokens()
    return _make_report(
        ended.plan, attempt.number, attempt.candidate, judged, tokens, latency_ms=_latency_ms(ended, attempt, later)
    )


def _make_report(
    plan: Plan, number: int, candidate: Candidate, judged: Verdict, tokens: _Tokens, *, latency_ms: int | None
) -> Report:
    return Report(
        usage_id=uuid_utils.uuid7(),
        user_id=plan.user_id,
        request_id=f"{plan.decision_id}/{number}",
        model_id=candidate.model_id,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        latency_ms=latency_ms,
        succeeded=judged.message is None,
        failure=judged.failure,
        error_message=judged.message,
        decision_id=plan.decision_id,
        payer=candidate.payer,
        occurred_at=plan.decided_at,
        cached_tokens=tokens.cached,
        reasoning_tokens=tokens.reasoning,
        is_estimated=tokens.is_estimated,
    )


def _verdict(ended: Ended, attempt: Attempt, later: Attempt | None) -> Verdict:
    if attempt.outcome == "open":
        if later is None:
            return verdict.of_open(ended.flags, ended.status)
        is_late = later.started_ms - attempt.started_ms >= ended.plan.first_byte_ms
        return verdict.SILENT if is_late else verdict.BROKEN
    if not verdict.is_answer(attempt.outcome):
        return verdict.of_failure(attempt.outcome)
    if later is not None:
        return verdict.GIVEN_UP
    return verdict.of_answer(
        ended.flags,
        ended.status,
        is_stream=ended.plan.stream,
        stream_end=ended.stream.ended if ended.stream else None,
        was_read=ended.stream is not None or ended.body_bytes == 0,
    )


def _latency_ms(ended: Ended, attempt: Attempt, later: Attempt | None) -> int:
    """Return how long it took until its answer began or it failed; where that was not seen, until what came next."""
    if attempt.ended_ms is not None:
        took = attempt.ended_ms - attempt.started_ms
    elif later is not None:
        took = later.started_ms - attempt.started_ms
    else:
        took = ended.duration_ms - (attempt.started_ms - ended.attempts[0].started_ms)
    return min(max(0, took), MOST_MS)


def _tokens(ended: Ended, *, is_last: bool) -> _Tokens:
    """Return what the provider counted, or an estimate that keeps within the plan's bounds."""
    plan, usage = ended.plan, ended.usage
    if usage is not None and is_last:
        return _Tokens(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    produced = _produced(ended) if is_last else 0
    return _Tokens(
        min(plan.prompt_tokens, plan.prompt_bound), min(produced, plan.output_bound, MOST_TOKENS), is_estimated=True
    )


def _produced(ended: Ended) -> int:
    """Estimate the tokens of an answer that did not tell: of a stream, about one an event."""
    stream, body = ended.stream, ended.body_bytes
    if stream is None:
        return math.ceil(body / (BYTES_AN_EVENT if ended.plan.stream else BYTES_A_TOKEN))
    if stream.ended is not None or body <= stream.size_bytes or not stream.size_bytes:
        return stream.events
    return math.ceil(stream.events * body / stream.size_bytes)


def _attempts(plan: Plan, noted: object) -> tuple[Attempt, ...]:
    """Read the attempts; ValueError for one that cannot be read."""
    if not isinstance(noted, Mapping):
        return ()
    if len(noted) > MOST_ATTEMPTS:
        raise ValueError("too many attempts")
    found = {int(name): entry for name, entry in noted.items() if _is_number(name)}
    return tuple(_attempt(plan, number, found[number]) for number in sorted(found))


def _attempt(plan: Plan, number: int, noted: object) -> Attempt:
    """Read `<candidate>:<outcome>:<started>:<ended or nothing>`; ValueError."""
    place, outcome, started, ended = str(noted).split(":")
    candidate = whole_number(float(place), most=len(plan.candidates))
    if not candidate or not verdict.is_outcome(outcome):
        raise ValueError("neither a candidate nor an outcome")
    return Attempt(
        number,
        plan.candidates[candidate - 1],
        outcome,
        whole_number(float(started), most=MOST_EXACT),
        whole_number(float(ended), most=MOST_EXACT) if ended else None,
    )


def _is_number(name: object) -> bool:
    return isinstance(name, str) and len(name) <= 3 and name.isascii() and name.isdigit() and name[0] != "0"  # noqa: PLR2004


def _usage(noted: object) -> Usage | None:
    """Read what the provider counted; None when it did not, or when it cannot be."""
    if not isinstance(noted, Mapping):
        return None
    try:
        read, written = (whole_number(noted.get(name), most=MOST_TOKENS) for name in ("input_tokens", "output_tokens"))
    except ValueError:
        return None
    return Usage(
        read,
        written,
        min(_count(noted.get("cached_tokens"), MOST_TOKENS), read),
        min(_count(noted.get("reasoning_tokens"), MOST_TOKENS), written),
    )


def _stream(noted: object) -> Stream | None:
    if not isinstance(noted, Mapping):
        return None
    end = noted.get("ended")
    return Stream(
        events=_count(noted.get("events"), MOST_EXACT),
        size_bytes=_count(noted.get("bytes"), MOST_EXACT),
        ended=end if isinstance(end, str) else None,
    )


def _count(value: object, most: int) -> int:
    try:
        return whole_number(value, most=most)
    except ValueError:
        return 0
