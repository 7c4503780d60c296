"""What sums come to: the whole of a period, and its days or hours one by one."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from llmrouter_server.usage.rollup import Sum

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    from llmrouter_server.usage.period import Period

HOURS_A_DAY = 24


def each_day(period: Period, found: Mapping[date, Sum]) -> list[tuple[datetime, Sum]]:
    """Return every day of a period, in order, by its first moment."""
    return [(datetime.combine(day, time(), UTC), found.get(day, Sum())) for day in period.days]


def each_hour(period: Period, found: Mapping[datetime, Sum]) -> list[tuple[datetime, Sum]]:
    """Return every hour of a period, in order, by its first moment."""
    hours = [
        datetime.combine(day, time(), UTC) + timedelta(hours=hour) for day in period.days for hour in range(HOURS_A_DAY)
    ]
    return [(hour, found.get(hour, Sum())) for hour in hours]
