"""Each reader of request fields, with good, bad and hostile values."""

from __future__ import annotations

import math
from decimal import Decimal
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.errors import DomainError, FieldViolation
from llmrouter_server.runtime.fields import (
    NIL,
    Fields,
)
from unit.field_problems import is_good, problems

SOME_ID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


# --- all at once ---


def test_done_is_silent_when_nothing_is_wrong() -> None:
    fields = Fields()
    fields.number("days", 30, low=1, high=365)
    fields.done()


def test_all_wrong_fields_are_told_at_once_in_the_order_they_were_read() -> None:
    fields = Fields()
    fields.uuid("provider_id", "x")
    fields.text("name", "", longest=10)
    fields.number("priority", -1, low=0, high=1000)
    with pytest.raises(DomainError) as raised:
        fields.done()
    assert raised.value.reason == "INVALID_FIELD"
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.violations == (
        FieldViolation("provider_id", "must be a UUID"),
        FieldViolation("name", "is required"),
        FieldViolation("priority", "must be from 0 to 1000, not -1"),
    )


# --- uuid ---


@given(st.uuids())
def test_every_uuid_in_its_usual_form_is_read_in_either_case(value: UUID) -> None:
    for text in (str(value), str(value).upper()):
        fields = Fields()
        assert fields.uuid("id", text) == value
        fields.done()


@pytest.mark.parametrize(
    "value",
    [
        "x",
        "6f9619ff",
        SOME_ID[:-1],
        SOME_ID + "0",
        f" {SOME_ID}",
        f"{SOME_ID}\n",
        f"{{{SOME_ID}}}",
        f"urn:uuid:{SOME_ID}",
        SOME_ID.replace("-", ""),
        SOME_ID.replace("-", "_"),
        SOME_ID.replace("6", "٦"),
        "g" + SOME_ID[1:],
        "' or 1=1 --",
    ],
)
def test_a_uuid_in_any_other_form_is_refused(value: str) -> None:
    assert problems(lambda fields: fields.uuid("id", value)) == [FieldViolation("id", "must be a UUID")]


def test_a_uuid_is_required_unless_it_is_optional() -> None:
    fields = Fields()
    assert fields.uuid("id", "") == NIL
    assert problems(lambda fields: fields.uuid("id", "")) == [FieldViolation("id", "is required")]
    assert Fields().optional_uuid("id", "") is None
    assert is_good(lambda fields: fields.optional_uuid("id", ""))
    assert Fields().optional_uuid("id", SOME_ID) == UUID(SOME_ID)
    assert problems(lambda fields: fields.optional_uuid("id", "x")) == [FieldViolation("id", "must be a UUID")]


@given(st.text(max_size=50))
def test_no_text_makes_the_uuid_reader_fail_and_what_it_accepts_it_read_right(value: str) -> None:
    fields = Fields()
    read = fields.uuid("id", value)
    if is_good(lambda fields: fields.uuid("id", value)):
        assert str(read) == value.lower()


# --- text ---


@pytest.mark.parametrize(
    ("value", "description"),
    [
        ("", "is required"),
        ("   ", "is required"),
        ("\t\n", "is required"),
        ("ab", "must have at least 3 characters"),
        ("  ab  ", "must have at least 3 characters"),
        ("abcdef", "must have at most 5 characters"),
        ("ab\0cd", "must have no control characters"),
        ("ab\ncd", "must have no control characters"),
        ("ab\x7fcd", "must have no control characters"),
        ("ab\u202ecd", "must have no control characters"),  # turns the text that follows it around
        ("ab\ud800cd", "must have no control characters"),
    ],
)
def test_text_that_is_refused(value: str, description: str) -> None:
    found = problems(lambda fields: fields.text("name", value, shortest=3, longest=5))
    assert found == [FieldViolation("name", description)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("abc", "abc"), ("abcde", "abcde"), ("  abc \n", "abc"), ("  abcde  ", "abcde"), ("äöü", "äöü")],
)
def test_text_that_is_read_without_the_space_around_it(value: str, expected: str) -> None:
    fields = Fields()
    assert fields.text("name", value, shortest=3, longest=5) == expected
    fields.done()


def test_text_may_be_empty_when_it_may_be_that_short() -> None:
    fields = Fields()
    assert fields.text("task_type", " ", shortest=0, longest=5) == ""
    fields.done()


@given(st.text(max_size=12))
def test_text_is_read_stripped_and_accepted_when_it_fits_and_is_printable(value: str) -> None:
    fields = Fields()
    read = fields.text("name", value, shortest=2, longest=8)
    assert read == value.strip()
    good = is_good(lambda fields: fields.text("name", value, shortest=2, longest=8))
    assert good == (2 <= len(read) <= 8 and read.isprintable())


# --- numbers ---


@given(st.integers(), st.integers(), st.integers())
def test_a_number_is_good_when_it_is_in_its_range_ends_included(value: int, low: int, high: int) -> None:
    assert Fields().number("days", value, low=low, high=high) == value
    assert is_good(lambda fields: fields.number("days", value, low=low, high=high)) == (value in range(low, high + 1))


@pytest.mark.parametrize(("value", "good"), [(0, False), (1, True), (365, True), (366, False)])
def test_the_ends_of_a_range_belong_to_it(value: int, good: bool) -> None:
    assert is_good(lambda fields: fields.number("days", value, low=1, high=365)) == good


@pytest.mark.parametrize("value", [0.0, -0.0, 0.4, 1.0, 5e-324])
def test_a_fraction_from_0_to_1_is_read(value: float) -> None:
    fields = Fields()
    assert fields.fraction("cost_weight", value) == value
    fields.done()


@pytest.mark.parametrize("value", [-5e-324, -1.0, math.nextafter(1.0, 2.0), 2.0, math.nan, math.inf, -math.inf])
def test_any_other_fraction_is_refused(value: float) -> None:
    found = problems(lambda fields: fields.fraction("cost_weight", value))
    assert found == [FieldViolation("cost_weight", "must be from 0 to 1")]


@given(st.integers(0, 10**10), st.integers(0, 6))
def test_every_decimal_of_so_many_places_is_read_exactly(units: int, places: int) -> None:
    fields = Fields()
    read = fields.decimal("price", units / 10**places, most=10**10, places=places)
    assert read == Decimal(units).scaleb(-places)
    fields.done()


@pytest.mark.parametrize("value", [-5e-324, -0.01, 100.0001, math.nan, math.inf, -math.inf, 1e308, 2**32 - 1])
def test_a_decimal_out_of_range_is_refused_and_read_as_0(value: float) -> None:
    fields = Fields()
    assert fields.decimal("price", value, most=100, places=4) == 0
    found = problems(lambda fields: fields.decimal("price", value, most=100, places=4))
    assert found == [FieldViolation("price", "must be from 0 to 100")]


@pytest.mark.parametrize(
    ("value", "places", "good"),
    [
        (100, 0, True),
        (0.5, 0, False),
        (1.25, 2, True),
        (1.255, 2, False),
        (0.0001, 4, True),
        (0.00015, 4, False),
        (99.9999, 4, True),
        (99.99999, 4, False),
        (0.1 + 0.2, 4, False),  # 0.30000000000000004
        (1e-7, 4, False),
        (5e-324, 4, False),
    ],
)
def test_a_decimal_may_have_so_many_places_and_no_more(value: float, places: int, good: bool) -> None:
    found = problems(lambda fields: fields.decimal("price", value, most=100, places=places))
    assert found == ([] if good else [FieldViolation("price", f"must have at most {places} decimals")])


def test_minus_zero_is_read_as_zero_without_a_sign() -> None:
    fields = Fields()
    assert str(fields.decimal("price", -0.0, most=100, places=4)) == "0.0"
    fields.done()


@given(st.floats(), st.integers(0, 4))
def test_no_float_makes_the_decimal_reader_fail_and_what_it_accepts_is_the_same_number(
    value: float, places: int
) -> None:
    amount = Fields().decimal("price", value, most=10**8, places=places)
    if is_good(lambda fields: fields.decimal("price", value, most=10**8, places=places)):
        assert float(amount) == value
        assert amount.scaleb(places) == int(amount.scaleb(places))


def test_dollars_are_decimals_to_the_cent() -> None:
    fields = Fields()
    assert fields.dollars("budget", 99.99, most=100) == Decimal("99.99")
    fields.done()
    found = problems(lambda fields: fields.dollars("budget", 1.005, most=100))
    assert found == [FieldViolation("budget", "must have at most 2 decimals")]
    found = problems(lambda fields: fields.dollars("budget", 100.01, most=100))
    assert found == [FieldViolation("budget", "must be from 0 to 100")]


# --- JSON objects ---


def struct(**values: object) -> Struct:
    made = Struct()
    made.update(values)
    return made


def test_a_json_object_is_read_whole() -> None:
    fields = Fields()
    value = {"note": "mine", "n": 1.5, "on": True, "none": None, "list": [1, "x", {"y": []}], "empty": {}}
    assert fields.json_object("metadata", struct(**value), most_bytes=1000) == value
    assert fields.json_object("metadata", Struct(), most_bytes=2) == {}
    fields.done()


@pytest.mark.parametrize("size", [10, 11, 12])
def test_a_json_object_is_measured_in_bytes_of_json(size: int) -> None:
    value = struct(a="x" * (size - len('{"a": ""}')))
    assert is_good(lambda fields: fields.json_object("metadata", value, most_bytes=11)) == (size <= 11)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_json_object_has_no_numbers_that_json_lacks(value: float) -> None:
    for made in (struct(a=value), struct(a={"b": [value]})):
        fields = Fields()
        assert fields.json_object("metadata", made, most_bytes=1000) == {}
        with pytest.raises(DomainError, match="must be a JSON object of finite numbers"):
            fields.done()


@pytest.mark.parametrize("made", [struct(a="x\0y"), struct(**{"x\0y": 1}), struct(a=[{"b": "\0"}])])
def test_a_json_object_has_no_nul_in_a_key_or_a_value(made: Struct) -> None:
    found = problems(lambda fields: fields.json_object("metadata", made, most_bytes=1000))
    assert found == [FieldViolation("metadata", "must have no NUL characters")]


def test_a_json_object_may_spell_nul_in_plain_letters() -> None:
    assert is_good(lambda fields: fields.json_object("metadata", struct(a=r"\u0000"), most_bytes=1000))


def test_an_object_nested_too_deep_is_refused() -> None:
    made = Struct()
    inner = made
    for _ in range(3000):
        inner = inner.get_or_create_struct("a")
    assert not is_good(lambda fields: fields.json_object("metadata", made, most_bytes=10**6))


# --- words ---


def test_one_of_a_few_words_is_read_and_any_other_refused_with_the_choices() -> None:
    assert Fields().one_of("group_by", "day", iter(["day", "model"])) == "day"
    assert is_good(lambda fields: fields.one_of("group_by", "model", iter(["day", "model"])))
    for value in ("", "DAY", "day ", "da"):
        found = problems(lambda fields, value=value: fields.one_of("group_by", value, iter(["day", "model"])))
        assert found == [FieldViolation("group_by", "must be one of day, model")]
