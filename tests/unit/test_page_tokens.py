"""Pages of lists, and the tokens that lead to the next one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.errors import DomainError, FieldViolation
from llmrouter_server.runtime.fields import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_PAGE_TOKEN_CHARS,
    Fields,
    next_page_token,
)
from unit.field_problems import is_good, problems

# What a stored name can hold: printable, so without NUL and lone surrogates.
NAMES = st.text(st.characters(codec="utf-8"), max_size=100).filter(str.isprintable)


@pytest.mark.parametrize(("value", "size"), [(0, DEFAULT_PAGE_SIZE), (1, 1), (MAX_PAGE_SIZE, MAX_PAGE_SIZE)])
def test_page_size_is_read_and_0_stands_for_the_default(value: int, size: int) -> None:
    fields = Fields()
    assert fields.page_size(value) == size
    fields.done()


@pytest.mark.parametrize("value", [-1, MAX_PAGE_SIZE + 1, 2**31])
def test_a_page_size_out_of_range_is_refused(value: int) -> None:
    found = problems(lambda fields: fields.page_size(value))
    assert found == [FieldViolation("page_size", f"must be from 1 to {MAX_PAGE_SIZE}, not {value}")]


def test_no_page_token_is_the_first_page() -> None:
    fields = Fields()
    assert fields.page_token("", int, str) is None
    fields.done()


@given(st.integers(-(2**31), 2**31 - 1), NAMES.filter(lambda name: r"\x00" not in name))
def test_a_page_token_gives_back_the_sort_keys_it_was_made_of(number: int, name: str) -> None:
    fields = Fields()
    assert fields.page_token(next_page_token(number, name), int, str) == (number, name)
    fields.done()


def test_a_page_token_may_hold_a_name_that_spells_nul_in_plain_letters() -> None:
    assert Fields().page_token(next_page_token(r"\x00"), str) == (r"\x00",)


def token_of(text: str | bytes) -> str:
    return base64.urlsafe_b64encode(text.encode() if isinstance(text, str) else text).decode()


HOSTILE_TOKENS = [
    pytest.param("x", id="no base64"),
    pytest.param("%%%", id="percent signs"),
    pytest.param("é", id="no ASCII"),
    pytest.param("\ud800", id="a lone surrogate"),
    pytest.param("\0", id="NUL"),
    pytest.param(" ", id="a space"),
    pytest.param("' or 1=1 --", id="SQL"),
    pytest.param(token_of(b"\xff\xfe"), id="no UTF-8"),
    pytest.param(token_of("not json"), id="no JSON"),
    pytest.param(token_of("null"), id="null"),
    pytest.param(token_of('{"0": 1, "1": "a"}'), id="an object"),
    pytest.param(token_of('"ab"'), id="a text"),
    pytest.param(token_of("[]"), id="no keys"),
    pytest.param(token_of("[1]"), id="too few keys"),
    pytest.param(token_of('[1, "a", 2]'), id="too many keys"),
    pytest.param(token_of('["a", 1]'), id="keys in the wrong order"),
    pytest.param(token_of('[true, "a"]'), id="a bool for a number"),
    pytest.param(token_of('[1.0, "a"]'), id="a float for a number"),
    pytest.param(token_of('["1", "a"]'), id="a text for a number"),
    pytest.param(token_of("[1, null]"), id="null for a text"),
    pytest.param(token_of('[1, ["a"]]'), id="a list for a text"),
    pytest.param(token_of('[NaN, "a"]'), id="no number"),
    pytest.param(token_of('[1, "a\\u0000b"]'), id="a key with NUL"),
    pytest.param(token_of("[" * 1500), id="deep nesting"),
    pytest.param(token_of("[" + "9" * 1500), id="a number that does not end"),
    pytest.param(token_of(json.dumps([1, "a" * MAX_PAGE_TOKEN_CHARS])), id="too long"),
    pytest.param("A" * 1_000_000, id="far too long"),
    pytest.param(
        token_of('[1, "\\ud800"]'),
        id="a key with a lone surrogate",
    ),
    pytest.param(
        token_of(f'[{10**30}, "a"]'),
        id="a number beyond 64 bits",
    ),
]


@pytest.mark.parametrize("token", HOSTILE_TOKENS)
def test_a_page_token_that_no_list_returned_is_refused(token: str) -> None:
    fields = Fields()
    assert fields.page_token(token, int, str) is None
    with pytest.raises(DomainError) as raised:
        fields.done()
    assert raised.value.violations == (FieldViolation("page_token", "is not one that this list returned"),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(min_size=1) | st.binary(min_size=1).map(token_of) | JSON.map(json.dumps).map(token_of))
def test_no_page_token_makes_the_reader_fail_or_gives_keys_of_another_shape(token: str) -> None:
    keys = Fields().page_token(token, int, str)
    assert keys is None or [type(key) for key in keys] == [int, str]
    assert (keys is not None) == is_good(lambda fields: fields.page_token(token, int, str))
