from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter.v2.usage_service_pb2 import GetUsageRequest
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.fields import Fields
from llmrouter_server.usage.period import Period, month_of, months_later, read_last_days, read_period
from llmrouter_server.usage.upkeep import old_months

TODAY = date(2026, 3, 15)


def read(start: str = "", end: str = "", today: date = TODAY, **limits: int) -> Period:
    fields = Fields()
    period = read_period(fields, start, end, today, **limits)
    fields.done()
    return period


def wrong_fields(error: pytest.ExceptionInfo[DomainError]) -> list[str]:
    assert error.value.reason == "INVALID_FIELD"
    return [violation.field for violation in error.value.violations]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("", "", Period(date(2026, 2, 14), TODAY)),
        ("2026-03-01", "", Period(date(2026, 3, 1), TODAY)),
        ("", "2026-01-31", Period(date(2026, 1, 2), date(2026, 1, 31))),
        ("2024-02-29", "2024-02-29", Period(date(2024, 2, 29), date(2024, 2, 29))),
        ("2025-03-16", "2026-03-15", Period(date(2025, 3, 16), TODAY)),
        ("", "0001-01-01", Period(date.min, date.min)),
        ("9999-12-31", "9999-12-31", Period(date.max, date.max)),
    ],
)
def test_a_period_is_as_it_is_given_or_ends_today(start: str, end: str, expected: Period) -> None:
    assert read(start, end) == expected


@pytest.mark.parametrize(
    ("start", "end", "wrong"),
    [
        ("2026-02-30", "", ["start_date"]),
        ("2026-2-3", "2026-13-01", ["start_date", "end_date"]),
        ("20260203", "", ["start_date"]),
        ("2026-03-01\n", "", ["start_date"]),
        ("२०२६-०३-०१", "", ["start_date"]),
        ("2026-03-16", "", ["end_date"]),
        ("2026-03-02", "2026-03-01", ["end_date"]),
        ("2025-03-15", "2026-03-15", ["end_date"]),
        ("0000-01-01", "", ["start_date"]),
    ],
)
def test_a_period_that_is_none_is_refused(start: str, end: str, wrong: list[str]) -> None:
    with pytest.raises(DomainError) as error:
        read(start, end)
    assert wrong_fields(error) == wrong


def test_limits_are_those_of_the_list() -> None:
    assert read(default_days=2) == Period(date(2026, 3, 14), TODAY)
    with pytest.raises(DomainError, match="at most 31 days"):
        read("2026-02-12", "2026-03-15", most_days=31)
    assert len(read("2026-02-13", "2026-03-15", most_days=31).days) == 31


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (GetUsageRequest(days=0), ["days"]),
        (GetUsageRequest(days=366), ["days"]),
        (GetUsageRequest(days=2**32 - 1), ["days"]),
        (GetUsageRequest(start_date="2026-03-01"), ["end_date"]),
        (GetUsageRequest(end_date="2026-99-01"), ["start_date", "end_date"]),
        (GetUsageRequest(days=3, start_date="2026-03-01", end_date="2026-03-02"), ["days"]),
        (GetUsageRequest(start_date="2026-03-02", end_date="2026-03-01"), ["end_date"]),
    ],
)
def test_last_days_that_are_none_are_refused(request_: GetUsageRequest, wrong: list[str]) -> None:
    with pytest.raises(DomainError) as error:
        read_last_days(request_, TODAY)
    assert wrong_fields(error) == wrong


def test_the_last_days_include_today() -> None:
    assert read_last_days(GetUsageRequest(days=1), TODAY) == Period(TODAY, TODAY)
    assert len(read_last_days(GetUsageRequest(), TODAY).days) == 30
    given_days = GetUsageRequest(start_date="2025-01-01", end_date="2025-01-02")
    assert read_last_days(given_days, TODAY) == Period(date(2025, 1, 1), date(2025, 1, 2))


def test_a_period_goes_from_its_first_to_its_last_moment() -> None:
    period = Period(date(2024, 2, 28), date(2024, 3, 1))
    assert period.start == datetime(2024, 2, 28, tzinfo=UTC)
    assert period.end + timedelta(microseconds=1) == datetime(2024, 3, 2, tzinfo=UTC)
    assert period.days == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]


def test_a_month_is_that_of_utc() -> None:
    moment = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert month_of(moment) == date(2026, 12, 1)
    assert month_of(moment + timedelta(microseconds=1)) == date(2027, 1, 1)
    assert month_of(moment.astimezone(ZoneInfo("Pacific/Kiritimati"))) == date(2026, 12, 1)


@given(day=st.dates(date(1, 1, 1), date(9900, 12, 31)), count=st.integers(0, 600))
def test_months_later_are_as_many_as_asked_for(day: date, count: int) -> None:
    later = months_later(day, count)
    assert later.day == 1
    assert (later.year - day.year) * 12 + later.month - day.month == count


@given(now=st.datetimes(datetime(2000, 1, 1), datetime(2999, 1, 1)), retention=st.integers(1, 4000))  # noqa: DTZ001
def test_a_month_is_old_when_its_last_day_is(now: datetime, retention: int) -> None:
    now = now.replace(tzinfo=UTC)
    months = [months_later(month_of(now - timedelta(days=retention + 70)), count) for count in range(6)]
    names = [f"llm_usage_logs_{month:%Y_%m}" for month in reversed(months)]
    old = old_months(names, now, retention)
    assert old == months[: len(old)]
    last_days = [months_later(month, 1) - timedelta(days=1) for month in months]
    assert len(old) == sum((now.date() - last_day).days > retention for last_day in last_days)


def test_a_partition_with_another_name_is_nobodys_month() -> None:
    names = ["llm_usage_logs_default", "llm_usage_logs_2020_01_old", "llm_usage_logs_2020_02"]
    assert old_months(names, datetime(2026, 1, 1, tzinfo=UTC), 400) == [date(2020, 2, 1)]
