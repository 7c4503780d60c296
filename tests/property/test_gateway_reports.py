"""The laws of what is reported of a chat request, whatever Envoy tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from gateway_samples import NOW, STARTED_MS, plan
from llmrouter_server.gateway.ended import ended_from, estimate_of_lost, reports_of
from llmrouter_server.gateway.journal_file import read_line
from llmrouter_server.usage.attempts import PROVIDER_FAULTS
from llmrouter_server.usage.record import Failure

if TYPE_CHECKING:
    from llmrouter_server.gateway.plan import Plan

WORDS = ("silent", "broken", "strange", "too_long", "open")
OUTCOMES = st.sampled_from(WORDS) | st.integers(100, 599).map(str) | st.just("200")
FLAGS = ("DC", "UF", "UC", "UR", "UT", "SI", "URX", "LR", "NR", "UH", "UPE", "UMSDR", "DPE", "XX")
COUNTS = st.integers(0, 10**7)
NUMBERS = COUNTS | COUNTS.map(float)
PLANS = st.builds(
    plan,
    stream=st.booleans(),
    held=st.booleans(),
    prompt_tokens=COUNTS,
    prompt_bound=COUNTS,
    output_bound=COUNTS,
    first_byte_ms=st.integers(0, 60_000),
)
USAGES = st.none() | st.fixed_dictionaries(
    {"input_tokens": NUMBERS, "output_tokens": NUMBERS},
    optional={"cached_tokens": NUMBERS, "reasoning_tokens": NUMBERS},
)
STREAMS = st.none() | st.fixed_dictionaries(
    {"events": NUMBERS, "bytes": NUMBERS}, optional={"ended": st.sampled_from(["done", "finished", "cut"])}
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def noted_attempts(draw: st.DrawFn) -> dict[str, str]:
    noted, started = {}, STARTED_MS
    for number, outcome in enumerate(draw(st.lists(OUTCOMES, max_size=8)), 1):
        started += draw(st.integers(0, 40_000))
        end = draw(st.just("") | st.integers(0, 40_000).map(lambda took, since=started: str(since + took)))
        noted[str(number)] = f"{draw(st.integers(1, 2))}:{outcome}:{started}:{end}"
    return noted


@given(
    made=PLANS,
    noted=noted_attempts(),
    usage=USAGES,
    stream=STREAMS,
    status=st.integers(0, 599),
    flags=st.sets(st.sampled_from(FLAGS)),
    body_bytes=COUNTS,
    duration_ms=COUNTS,
)
def test_reports_follow_the_rules_whatever_happened(
    made: Plan, noted: dict[str, str], usage: Any, stream: Any, **told: Any
) -> None:
    metadata = {
        "llmrouter.plan": made.to_dict(),
        "llmrouter.attempts": noted,
        "llmrouter.usage": usage,
        "llmrouter.stream": stream,
    }
    ended = ended_from(metadata, **told)
    assert ended is not None
    reports = reports_of(ended)

    assert [report.request_id for report in reports] == [f"{made.decision_id}/{number}" for number in noted]
    assert len({report.usage_id for report in reports}) == len(reports)
    for report, attempt in zip(reports, noted.values(), strict=True):
        place, outcome, _, _ = attempt.split(":")
        is_answer, is_last = outcome.startswith("2"), report is reports[-1]
        candidate = made.candidates[int(place) - 1]
        assert (report.model_id, report.payer) == (candidate.model_id, candidate.payer)
        assert (report.user_id, report.decision_id, report.occurred_at) == (made.user_id, made.decision_id, NOW)
        assert report.latency_ms is not None
        assert 0 <= report.latency_ms <= 86_400_000

        # Only the last attempt can succeed, and only by an answer; what failed says why.
        assert not report.succeeded or (is_answer and is_last)
        assert report.succeeded == (report.error_message is None)
        assert not (report.succeeded and report.failure)

        # Only an answer has tokens: those that the provider counted, else an estimate within the bounds.
        counts = report.input_tokens, report.output_tokens
        if not is_answer:
            assert counts == (0, 0)
            assert not report.is_estimated
        elif is_last and usage is not None:
            assert counts == (usage["input_tokens"], usage["output_tokens"])
            assert not report.is_estimated
        else:
            assert report.is_estimated
            assert report.input_tokens == min(made.prompt_tokens, made.prompt_bound)
            assert report.output_tokens <= made.output_bound
        assert 0 <= report.cached_tokens <= report.input_tokens
        assert 0 <= report.reasoning_tokens <= report.output_tokens

        # The caller's and the client's own doing never counts against the provider.
        if outcome == "too_long" or (outcome.startswith("4") and outcome not in ("408", "429")):
            assert report.failure not in PROVIDER_FAULTS
        if outcome == "429":
            assert report.failure is Failure.RATE_LIMITED
        if outcome.startswith("5"):
            assert report.failure in (Failure.SERVER_ERROR, Failure.TIMEOUT)


@given(made=PLANS)
def test_the_estimate_of_a_lost_request_is_its_first_attempt_within_the_bounds(made: Plan) -> None:
    report = estimate_of_lost(made)
    assert report.request_id == f"{made.decision_id}/1"
    assert report.is_estimated
    assert not report.succeeded
    assert report.input_tokens <= made.prompt_bound
    assert report.output_tokens <= made.output_bound
    if made.held:
        assert (report.input_tokens, report.output_tokens) == (made.prompt_bound, made.output_bound)


@given(values=st.tuples(JSON, JSON, JSON, JSON), is_plan=st.booleans(), status=st.integers(), size=st.integers())
def test_garbage_is_overlooked_or_read_but_never_an_error(
    values: tuple[Any, ...], is_plan: bool, status: int, size: int
) -> None:
    names = ("plan", "attempts", "usage", "stream")
    metadata = {f"llmrouter.{name}": value for name, value in zip(names, values, strict=True)}
    if is_plan:
        metadata["llmrouter.plan"] = plan().to_dict()
    ended = ended_from(metadata, status=status, flags=["DC"], body_bytes=size, duration_ms=size)
    assert ended is None or len(reports_of(ended)) == len(ended.attempts)


@given(line=st.binary(max_size=200) | JSON.map(lambda value: repr(value).encode()))
def test_lines_that_are_none_are_overlooked(line: bytes) -> None:
    assert read_line(line) is None
