"""What differs between two JSON objects."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.audit.changes import differing

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("a", "b", "c")
OBJECTS = st.fixed_dictionaries(dict.fromkeys(NAMES, JSON))


def canonical(value: Any) -> str:
    """Write JSON so that equal values are equal texts; -0.0 is 0 in JSON as Postgres keeps it."""
    return json.dumps(json.loads(json.dumps(value), parse_float=lambda text: float(text) + 0.0), sort_keys=True)


@given(OBJECTS, OBJECTS)
def test_exactly_the_fields_that_are_not_the_same_json_differ(before: dict[str, Any], after: dict[str, Any]) -> None:
    was, became = differing(before, after)
    expected = [name for name in NAMES if canonical(before[name]) != canonical(after[name])]
    assert sorted(was) == sorted(became) == expected
    assert all(was[name] is before[name] and became[name] is after[name] for name in expected)


@given(OBJECTS)
def test_nothing_differs_from_itself_after_a_journey_through_json(value: dict[str, Any]) -> None:
    assert differing(value, json.loads(json.dumps(value, sort_keys=True))) == ({}, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (1, "1"),
        (None, False),
        (None, 0),
        ([], {}),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ({"a": 1}, {}),
    ],
)
def test_values_that_differ(one: object, other: object) -> None:
    for before, after in ((one, other), (other, one), ([one], [other]), ({"x": one}, {"x": other})):
        assert differing({"a": before}, {"a": after}) == ({"a": before}, {"a": after})


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (0.0, -0.0), (10**300, 1e300), ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0})]
)
def test_values_that_are_the_same(one: object, other: object) -> None:
    assert differing({"a": one}, {"a": other}) == ({}, {})
