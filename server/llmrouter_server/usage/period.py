"""Periods of whole UTC days, and months."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from llmrouter_server.runtime.fields import Fields

if TYPE_CHECKING:
    from llmrouter.v2 import usage_service_pb2

DEFAULT_DAYS = 30
MAX_DAYS = 365
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @property
    def start(self) -> datetime:
        """The first moment."""
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """The last moment, to the microsecond, as fine as Postgres stores it."""
        return datetime.combine(self.last, time.max, UTC)

    @property
    def days(self) -> list[date]:
        """Every day, in order."""
        return [date.fromordinal(number) for number in range(self.first.toordinal(), self.last.toordinal() + 1)]


def month_of(moment: datetime) -> date:
    """Return the first day of the UTC month of a moment."""
    return moment.astimezone(UTC).date().replace(day=1)


def months_later(month: date, count: int) -> date:
    """Return the first day of the month so many months after the month of a day."""
    years, index = divmod(month.month - 1 + count, 12)
    return date(month.year + years, index + 1, 1)


def read_last_days(request: usage_service_pb2.GetUsageRequest, today: date) -> Period:
    """Read the last N days, or a first and a last day; INVALID_FIELD for anything else."""
    fields = Fields()
    if not request.start_date and not request.end_date:
        days = request.days if request.HasField("days") else DEFAULT_DAYS
        fields.number("days", days, low=1, high=MAX_DAYS)
        fields.done()
        return Period(_days_before(today, days - 1), today)
    if request.HasField("days"):
        fields.wrong("days", "cannot go together with start_date and end_date")
    for path, value in (("start_date", request.start_date), ("end_date", request.end_date)):
        if not value:
            fields.wrong(path, "is required together with the other one")
    first, last = _day(fields, "start_date", request.start_date), _day(fields, "end_date", request.end_date)
    period = _period(fields, first or last or today, last or first or today, MAX_DAYS)
    fields.done()
    return period


def read_period(
    fields: Fields,
    start_date: str,
    end_date: str,
    today: date,
    *,
    default_days: int = DEFAULT_DAYS,
    most_days: int = MAX_DAYS,
) -> Period:
    """Read a first and a last day; without them so many days that end with the last one, or today."""
    first, last = _day(fields, "start_date", start_date), _day(fields, "end_date", end_date)
    if (start_date and first is None) or (end_date and last is None):
        return Period(today, today)
    last = last or today
    return _period(fields, first or _days_before(last, default_days - 1), last, most_days)


def _period(fields: Fields, first: date, last: date, most_days: int) -> Period:
    if not 0 <= (last - first).days < most_days:
        fields.wrong("end_date", f"must be start_date or later, at most {most_days} days in all")
    return Period(first, last)


def _days_before(day: date, count: int) -> date:
    """Return the day so many days earlier, but no day before the first of the calendar."""
    return date.fromordinal(max(1, day.toordinal() - count))


def _day(fields: Fields, path: str, value: str) -> date | None:
    if not value:
        return None
    if DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    fields.wrong(path, "must be a day like 2026-01-31")
    return None
