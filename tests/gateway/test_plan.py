from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from gateway_samples import NOW, plan
from llmrouter_server.gateway.plan import Plan, whole_number


def test_a_plan_is_read_again_as_it_was_written() -> None:
    made = plan()
    assert Plan.from_dict(made.to_dict()) == made
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_plan_survives_envoys_metadata_where_all_numbers_are_floats() -> None:
    made, struct = plan(), struct_pb2.Struct()
    struct.update(made.to_dict())
    assert struct["prompt_tokens"] == 800.0
    assert Plan.from_dict(json_format.MessageToDict(struct)) == made


def test_a_plan_has_the_contracts_names() -> None:
    written = plan().to_dict()
    assert set(written) == {
        "decision_id",
        "user_id",
        "decided_at",
        "stream",
        "hide_usage",
        "prompt_tokens",
        "prompt_bound",
        "output_bound",
        "held",
        "first_byte_ms",
        "candidates",
    }
    assert set(written["candidates"][0]) == {
        "provider_id",
        "provider",
        "model_id",
        "model",
        "payer",
        "context",
        "path",
        "head",
    }


def test_its_moment_is_written_in_utc_to_the_microsecond() -> None:
    assert plan(decided_at=NOW).to_dict()["decided_at"] == "2026-03-31T23:59:50.000000+00:00"
    moved = plan(decided_at=NOW.astimezone(timezone(timedelta(hours=5))))
    assert moved.to_dict()["decided_at"] == "2026-03-31T23:59:50.000000+00:00"
    assert Plan.from_dict(moved.to_dict()).decided_at == NOW


def test_what_a_later_release_adds_is_overlooked() -> None:
    made = plan()
    written = made.to_dict() | {"new": 1}
    written["candidates"][0]["new"] = 1
    assert Plan.from_dict(written) == made


@pytest.mark.parametrize("value", [None, [], "plan", 1, {}, {"decision_id": None}])
def test_what_is_no_plan_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        Plan.from_dict(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decision_id", "1"),
        ("decision_id", 1),
        ("user_id", None),
        ("decided_at", "yesterday"),
        ("decided_at", "2026-03-31T23:59:50"),
        ("decided_at", "0001-01-01T00:00:00+14:00"),
        ("stream", 1),
        ("held", "true"),
        ("prompt_tokens", -1),
        ("prompt_tokens", 0.5),
        ("prompt_tokens", True),
        ("prompt_bound", float("nan")),
        ("prompt_bound", float("inf")),
        ("output_bound", 1_000_000_001),
        ("output_bound", "5"),
        ("first_byte_ms", None),
        ("candidates", []),
        ("candidates", {"0": {}}),
        ("candidates", [{}] * 21),
        ("candidates", ["gpt-4o"]),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Plan.from_dict(plan().to_dict() | {name: value})


@pytest.mark.parametrize(("name", "value"), [("payer", "NOBODY"), ("model_id", "gpt-4o"), ("context", -1), ("head", 1)])
def test_a_wrong_value_of_a_candidate_is_refused(name: str, value: Any) -> None:
    written = plan().to_dict()
    written["candidates"][1][name] = value
    with pytest.raises(ValueError):  # noqa: PT011
        Plan.from_dict(written)


def test_whole_numbers_are_read_up_to_their_bound() -> None:
    assert [whole_number(value, most=5) for value in (0, 5, 5.0)] == [0, 5, 5]


def test_moments_without_a_fraction_are_read_too() -> None:
    written = plan().to_dict() | {"decided_at": "2026-03-31T23:59:50Z"}
    assert Plan.from_dict(written).decided_at == datetime(2026, 3, 31, 23, 59, 50, tzinfo=UTC)
