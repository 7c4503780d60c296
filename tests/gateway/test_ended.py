"""How what Envoy tells of a request becomes reports."""

from __future__ import annotations

from typing import Any

import pytest

from gateway_samples import NOW, STARTED_MS, candidate, ended, plan
from llmrouter_server.gateway.ended import Ended, ended_from, estimate_of_lost, reports_of
from llmrouter_server.usage.record import Failure, Report

NO_STREAM = {"usage": None, "stream": None}


def tokens(report: Report) -> tuple[int, int, bool]:
    return report.input_tokens, report.output_tokens, report.is_estimated


def last(*outcomes: str, **changes: Any) -> Report:
    return reports_of(ended(plan(), *outcomes, **changes))[-1]


def test_each_attempt_has_a_report_of_its_own() -> None:
    made = plan()
    first, second = reports_of(ended(made, "429", "200"))
    assert [first.request_id, second.request_id] == [f"{made.decision_id}/1", f"{made.decision_id}/2"]
    assert [first.model_id, second.model_id] == [each.model_id for each in made.candidates]
    assert [first.payer, second.payer] == ["PLATFORM", "USER_KEY"]
    for each in (first, second):
        assert (each.user_id, each.decision_id, each.occurred_at) == (made.user_id, made.decision_id, NOW)
    assert first.usage_id < second.usage_id


def test_a_success_has_the_tokens_that_the_provider_counted() -> None:
    report = last("200")
    assert (report.succeeded, report.failure, report.error_message) == (True, None, None)
    assert tokens(report) == (700, 60, False)
    assert (report.cached_tokens, report.reasoning_tokens) == (100, 20)


def test_what_the_provider_counted_stays_even_beyond_the_bounds() -> None:
    assert tokens(last("200", usage={"input_tokens": 5000, "output_tokens": 7000})) == (5000, 7000, False)


def test_parts_of_tokens_are_never_more_than_the_whole() -> None:
    report = last(
        "200", usage={"input_tokens": 5, "output_tokens": 6, "cached_tokens": 50, "reasoning_tokens": float("nan")}
    )
    assert (report.cached_tokens, report.reasoning_tokens) == (5, 0)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "-",
        {},
        {"input_tokens": 1},
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1e300, "output_tokens": 1},
    ],
)
def test_without_sensible_usage_tokens_are_estimated(usage: object) -> None:
    assert tokens(last("200", usage=usage)) == (800, 64, True)


@pytest.mark.parametrize(
    ("stream", "body", "output"),
    [
        ({"events": 64, "bytes": 16_000, "ended": "done"}, 99_000, 64),
        ({"events": 64, "bytes": 16_000}, 24_000, 96),
        ({"events": 64, "bytes": 16_000}, 24_001, 97),
        ({"events": 64, "bytes": 16_000}, 8000, 64),
        ({"events": 64, "bytes": 0}, 8000, 64),
        ({"events": 64, "bytes": 16_000}, 10**9, 500),
        (None, 2500, 10),
        ("-", 2501, 11),
        ({"events": "many", "bytes": []}, 8000, 0),
    ],
)
def test_a_streams_tokens_are_about_its_events_scaled_from_the_last_mark(stream: Any, body: int, output: int) -> None:
    assert tokens(last("200", usage=None, stream=stream, flags="DC", bytes=body)) == (800, output, True)


def test_an_answer_in_one_piece_is_estimated_by_its_bytes() -> None:
    [report] = reports_of(ended(plan(stream=False), "200", **NO_STREAM, bytes=401))
    assert report.succeeded
    assert tokens(report) == (800, 101, True)


def test_an_estimate_stays_within_the_bounds() -> None:
    made = plan(prompt_tokens=900, prompt_bound=700, output_bound=7)
    [report] = reports_of(ended(made, "200", usage=None))
    assert tokens(report) == (700, 7, True)


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        ("400", Failure.CALLER),
        ("401", Failure.UNAUTHORIZED),
        ("402", Failure.UNAUTHORIZED),
        ("403", Failure.UNAUTHORIZED),
        ("404", Failure.CALLER),
        ("408", Failure.TIMEOUT),
        ("413", Failure.CALLER),
        ("429", Failure.RATE_LIMITED),
        ("500", Failure.SERVER_ERROR),
        ("503", Failure.SERVER_ERROR),
        ("504", Failure.TIMEOUT),
        ("529", Failure.SERVER_ERROR),
        ("302", Failure.SERVER_ERROR),
        ("silent", Failure.TIMEOUT),
        ("broken", Failure.CONNECT),
        ("strange", Failure.SERVER_ERROR),
        ("too_long", Failure.CALLER),
    ],
)
def test_what_failed_before_its_answer_costs_nothing_and_tells_why(outcome: str, failure: Failure) -> None:
    for report in (last(outcome, status=502), reports_of(ended(plan(), outcome, "200"))[0]):
        assert (report.succeeded, report.failure) == (False, failure)
        assert tokens(report) == (0, 0, False)
        assert report.error_message


@pytest.mark.parametrize(
    ("flags", "status", "failure"),
    [
        ("DC", 0, Failure.CANCELLED),
        ("DR", 0, Failure.CANCELLED),
        ("UT", 504, Failure.TIMEOUT),
        ("-", 504, Failure.TIMEOUT),
        ("-", 408, Failure.TIMEOUT),
        ("SI,DC", 0, Failure.TIMEOUT),
        ("UMSDR", 504, Failure.TIMEOUT),
        ("UF,URX", 503, Failure.CONNECT),
        ("UC", 503, Failure.CONNECT),
        ("UR", 503, Failure.CONNECT),
        ("UPE", 502, Failure.SERVER_ERROR),
        ("-", 503, Failure.SERVER_ERROR),
    ],
)
def test_an_attempt_that_was_open_at_the_end_is_judged_by_the_flags(flags: str, status: int, failure: Failure) -> None:
    report = last("open", **NO_STREAM, flags=flags, status=status, bytes=0)
    assert (report.succeeded, report.failure) == (False, failure)
    assert tokens(report) == (0, 0, False)


@pytest.mark.parametrize(
    ("end", "flags", "failure"),
    [
        ("cut", "-", Failure.SERVER_ERROR),
        ("cut", "UR", Failure.SERVER_ERROR),
        ("cut", "SI", Failure.TIMEOUT),
        ("else", "-", Failure.SERVER_ERROR),
        (None, "UC", Failure.SERVER_ERROR),
        (None, "UPE", Failure.SERVER_ERROR),
        (None, "SI", Failure.TIMEOUT),
        (None, "UMSDR", Failure.TIMEOUT),
        (None, "DC", Failure.CANCELLED),
        (None, "-", Failure.TIMEOUT),
    ],
)
def test_a_stream_that_broke_off_has_failed_but_costs_what_was_produced(
    end: str | None, flags: str, failure: Failure
) -> None:
    stream = {"events": 64, "bytes": 16_000} | ({} if end is None else {"ended": end})
    report = last("200", usage=None, stream=stream, flags=flags)
    assert (report.succeeded, report.failure) == (False, failure)
    assert tokens(report) == (800, 64, True)
    assert report.error_message


@pytest.mark.parametrize(("end", "flags"), [("done", "-"), ("finished", "-"), ("done", "DC"), ("finished", "UC")])
def test_a_stream_that_was_complete_has_succeeded_whatever_came_then(end: str, flags: str) -> None:
    assert last("200", stream={"events": 1, "bytes": 1, "ended": end}, flags=flags).succeeded


@pytest.mark.parametrize(("flags", "failure"), [("-", Failure.TIMEOUT), ("UC", Failure.SERVER_ERROR)])
def test_a_stream_in_which_nothing_came_has_failed(flags: str, failure: Failure) -> None:
    [report] = reports_of(ended(plan(), "200", **NO_STREAM, flags=flags, bytes=0))
    assert (report.failure, tokens(report)) == (failure, (800, 0, True))


def test_a_stream_that_nobody_read_says_nothing_of_its_provider() -> None:
    [report] = reports_of(ended(plan(), "200", **NO_STREAM, bytes=2500))
    assert (report.succeeded, report.failure, tokens(report)) == (False, None, (800, 10, True))


@pytest.mark.parametrize(
    ("flags", "status", "failure"),
    [
        ("DC", 200, Failure.CANCELLED),
        ("UC", 200, Failure.SERVER_ERROR),
        ("UR", 200, Failure.SERVER_ERROR),
        ("UPE", 502, Failure.SERVER_ERROR),
        ("-", 500, Failure.SERVER_ERROR),
        ("UT", 504, Failure.TIMEOUT),
    ],
)
def test_an_answer_in_one_piece_that_broke_off_has_failed(flags: str, status: int, failure: Failure) -> None:
    [report] = reports_of(ended(plan(stream=False), "200", **NO_STREAM, flags=flags, status=status, bytes=40))
    assert (report.succeeded, report.failure) == (False, failure)
    assert tokens(report) == (800, 10, True)


def test_a_client_that_hangs_up_after_the_usage_came_is_charged_just_that() -> None:
    [report] = reports_of(ended(plan(stream=False), "200", stream=None, flags="DC"))
    assert (report.failure, tokens(report)) == (Failure.CANCELLED, (700, 60, False))


def test_an_answer_that_was_given_up_for_another_attempt_costs_its_prompt() -> None:
    first, second = reports_of(ended(plan(), "200", "200"))
    assert (first.failure, tokens(first)) == (Failure.SERVER_ERROR, (800, 0, True))
    assert tokens(second) == (700, 60, False)


@pytest.mark.parametrize(("pause_ms", "failure"), [(29_999, Failure.CONNECT), (30_000, Failure.TIMEOUT)])
def test_an_earlier_attempt_without_a_word_was_silent_or_broken_by_how_long_it_took(
    pause_ms: int, failure: Failure
) -> None:
    noted = {"1": f"1:open:{STARTED_MS}:", "2": f"2:200:{STARTED_MS + pause_ms}:{STARTED_MS + pause_ms + 5}"}
    first, second = reports_of(ended(plan(), attempts=noted))
    assert (first.failure, first.latency_ms, tokens(first)) == (failure, pause_ms, (0, 0, False))
    assert (second.succeeded, second.latency_ms) == (True, 5)


def test_latency_is_until_the_answer_began_else_until_the_end() -> None:
    assert [report.latency_ms for report in reports_of(ended(plan(), "500", "200"))] == [100, 100]
    assert [report.latency_ms for report in reports_of(ended(plan(), "500", "open", duration_ms=2000))] == [100, 1900]
    backwards = {"1": f"1:200:{STARTED_MS}:{STARTED_MS - 5}"}
    assert reports_of(ended(plan(), attempts=backwards))[0].latency_ms == 0
    endless = {"1": f"1:500:0:{STARTED_MS}"}
    assert reports_of(ended(plan(), attempts=endless))[0].latency_ms == 86_400_000


def test_without_an_attempt_there_is_nothing_to_report() -> None:
    for nothing in ({}, None, "-"):
        assert reports_of(ended(plan(), attempts=nothing, status=503, flags="DC")) == []


def test_attempts_are_read_in_the_order_of_their_numbers() -> None:
    noted = {str(number): f"1:503:{STARTED_MS + number}:{STARTED_MS + number}" for number in range(12, 0, -1)}
    reports = reports_of(ended(plan(), attempts=noted | {"note": "x"}))
    assert [report.request_id.rpartition("/")[2] for report in reports] == [str(number) for number in range(1, 13)]


@pytest.mark.parametrize(
    "noted",
    ["", "1:200", "0:200:1:2", "3:200:1:2", "1:fine:1:2", "1:20:1:2", "1:200:x:2", "1:200:1:-2", "1:200:nan:", 7, None],
)
def test_a_request_with_an_attempt_that_cannot_be_read_is_left_to_expire(noted: object) -> None:
    values = {"llmrouter.plan": plan().to_dict(), "llmrouter.attempts": {"1": noted}}
    assert ended_from(values, status=200, flags=(), body_bytes=0, duration_ms=0) is None


def test_what_is_none_of_ours_is_overlooked() -> None:
    for metadata in ({}, {"llmrouter.plan": None}, {"llmrouter.plan": {"decision_id": "x"}}):
        assert ended_from(metadata, status=200, flags=(), body_bytes=0, duration_ms=0) is None


def test_numbers_that_make_no_sense_count_as_none() -> None:
    values = {"llmrouter.plan": plan().to_dict()}
    found = ended_from(values, status=0, flags=(), body_bytes=-1, duration_ms=-1)
    assert isinstance(found, Ended)
    assert (found.body_bytes, found.duration_ms) == (0, 0)


def test_a_lost_request_is_recorded_at_worst_when_money_is_held_for_it() -> None:
    made = plan(candidate(payer="USER_KEY"), candidate())
    report = estimate_of_lost(made)
    assert (report.request_id, report.model_id) == (f"{made.decision_id}/1", made.candidates[0].model_id)
    assert (report.payer, report.occurred_at, report.latency_ms) == ("USER_KEY", NOW, None)
    assert (report.succeeded, report.failure, report.error_message) == (False, None, "no report came from the gateway")
    assert tokens(report) == (1000, 500, True)


def test_a_lost_request_without_held_money_is_recorded_by_its_prompt() -> None:
    assert tokens(estimate_of_lost(plan(held=False))) == (800, 0, True)


def test_no_word_of_the_providers_reaches_a_report() -> None:
    told = {"flags": "sk-secret", "usage": {"sk-secret": 1}, "stream": {"ended": "sk-secret"}}
    for outcome in ("400", "200", "open"):
        assert "sk-secret" not in repr(reports_of(ended(plan(), outcome, **told)))
