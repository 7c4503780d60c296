"""`llmrouter usage`: what was used and what it cost."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

import functools
import itertools
from datetime import date
from typing import TYPE_CHECKING, Any, TypedDict

import click

from llmrouter_server.admin import lookup
from llmrouter_server.admin.connection import Server, speaks_to_server
from llmrouter_server.admin.table import Column, json_option, lines_of, moment, money, number, show_all, show_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from llmrouter.v2.usage_pb2 import UsageBucket, UsageRecord
    from llmrouter.v2.usage_service_pb2 import GetUsageResponse

MOST_IN_A_PAGE = 500

BUCKET_COLUMNS: Sequence[Column[UsageBucket]] = (
    Column("FROM (UTC)", lambda each: moment(each.start)),
    Column("REQUESTS", lambda each: number(each.requests), right=True),
    Column("FAILED", lambda each: number(each.failed_requests), right=True),
    Column("INPUT", lambda each: number(each.input_tokens), right=True),
    Column("OUTPUT", lambda each: number(each.output_tokens), right=True),
    Column("US $", lambda each: money(each.cost_usd), right=True),
    Column("MEAN MS", lambda each: number(each.avg_latency_ms), right=True),
)


def _outcome(each: UsageRecord) -> str:
    from llmrouter.v2.usage_pb2 import USAGE_STATUS_SUCCESS, AttemptFailure

    if each.status == USAGE_STATUS_SUCCESS:
        return "success"
    failure = AttemptFailure.Name(each.failure).removeprefix("ATTEMPT_FAILURE_")
    return "error" if failure == "UNSPECIFIED" else failure.lower()


def _payer(each: UsageRecord) -> str:
    from llmrouter.v2.usage_pb2 import PAYER_USER_KEY

    return "user" if each.payer == PAYER_USER_KEY else "platform"


RECORD_COLUMNS: Sequence[Column[UsageRecord]] = (
    Column("WHEN (UTC)", lambda each: moment(each.occurred_at)),
    Column("PROVIDER", lambda each: each.provider_name),
    Column("MODEL", lambda each: each.model_name),
    Column("INPUT", lambda each: number(each.input_tokens), right=True),
    Column("OUTPUT", lambda each: number(each.output_tokens), right=True),
    Column("US $", lambda each: money(each.cost_usd), right=True),
    Column("MS", lambda each: number(each.latency_ms) if each.HasField("latency_ms") else "", right=True),
    Column("PAID BY", _payer),
    Column("OUTCOME", _outcome),
)


class Asked(TypedDict):
    """Whose usage, and of which time: fields that every request has."""

    user_id: str
    start_date: str
    end_date: str


def _day(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """Return a day such as 2026-03-01, or nothing."""
    try:
        return "" if value is None else date.fromisoformat(value).isoformat()
    except ValueError:
        raise click.BadParameter(f"{value!r} is no day such as 2026-03-01") from None


_ASKED = (
    click.option("--from", "start_date", callback=_day, metavar="YYYY-MM-DD", help="First UTC day."),
    click.option("--to", "end_date", callback=_day, metavar="YYYY-MM-DD", help="Last UTC day."),
    click.option("--user", type=click.UUID, help="Whose: needed with a service's token, else yourself."),
)


def _asked(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, as one argument `asked`."""

    @functools.wraps(command)
    def call(*arguments: Any, user: UUID | None, start_date: str, end_date: str, **others: Any) -> None:  # noqa: ANN401 - as click makes them
        asked = Asked(user_id="" if user is None else str(user), start_date=start_date, end_date=end_date)
        command(*arguments, asked=asked, **others)

    for option in reversed(_ASKED):
        call = option(call)
    return call


@click.group()
def usage() -> None:
    """See what you have used and what it cost."""


@usage.command()
@click.option("--days", type=click.IntRange(1, 365), help="The last so many UTC days, today included.  [default: 30]")
@_asked
@json_option
@speaks_to_server("user")
def summary(server: Server, *, days: int | None, asked: Asked, as_json: bool) -> None:
    """Sum it up by provider and by power level."""
    from llmrouter.v2.usage_service_pb2 import GetUsageRequest

    with server.connect() as client:
        found = client.usage.GetUsage(GetUsageRequest(days=days, **asked))
    if as_json:
        show_one(found, as_json=True)
        return
    click.echo(f"{moment(found.period_start)} to {moment(found.period_end)} UTC")
    for line in lines_of(list(_sums(found)), [False, True, True, True, True, True]):
        click.echo(line)


def _sums(found: GetUsageResponse) -> Iterator[Sequence[str]]:
    """Give the rows of the summary."""
    yield "", "REQUESTS", "FAILED", "INPUT", "OUTPUT", "US $"
    for name, provider in sorted(found.by_provider.items()):
        tokens = number(provider.input_tokens), number(provider.output_tokens)
        yield name, number(provider.requests), number(provider.failed_requests), *tokens, money(provider.cost_usd)
    for name in ("ECO", "BALANCED", "PRECISION"):
        level = found.by_power_level[name]
        yield name, number(level.requests), number(level.failed_requests), "", "", money(level.cost_usd)
    tokens = number(found.total_input_tokens), number(found.total_output_tokens)
    yield "total", number(found.total_requests), number(found.failed_requests), *tokens, money(found.total_cost_usd)


@usage.command()
@click.option("--by", "granularity", type=click.Choice(["day", "hour"]), default="day", show_default=True)
@_asked
@json_option
@speaks_to_server("user")
def series(server: Server, *, granularity: str, asked: Asked, as_json: bool) -> None:
    """Sum it up for each day or hour: 30 days or 2 days, unless told otherwise."""
    from llmrouter.v2.usage_service_pb2 import ListUsageBucketsRequest

    request = ListUsageBucketsRequest(granularity=granularity, **asked)
    with server.connect() as client:
        show_all(client.usage.ListUsageBuckets(request).buckets, BUCKET_COLUMNS, as_json=as_json)


@usage.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The most to list.")
@click.option("--errors", is_flag=True, help="Only failed ones.")
@_asked
@json_option
@speaks_to_server("user")
def records(server: Server, *, limit: int, errors: bool, asked: Asked, as_json: bool) -> None:
    """List single attempts, newest first."""
    from llmrouter.v2.usage_pb2 import USAGE_STATUS_ERROR, USAGE_STATUS_UNSPECIFIED
    from llmrouter.v2.usage_service_pb2 import ListUsageRecordsRequest

    request = ListUsageRecordsRequest(
        status=USAGE_STATUS_ERROR if errors else USAGE_STATUS_UNSPECIFIED,
        page_size=min(limit, MOST_IN_A_PAGE),
        **asked,
    )
    with server.connect() as client:
        found = lookup.every(client.usage.ListUsageRecords, request, "records")
        show_all(itertools.islice(found, limit), RECORD_COLUMNS, as_json=as_json)


@usage.command()
@_asked
@speaks_to_server("user")
def export(server: Server, *, asked: Asked) -> None:
    """Write single attempts to standard output as CSV, newest first."""
    from llmrouter.v2.usage_service_pb2 import ExportUsageRequest

    with server.connect() as client:
        for part in client.usage.ExportUsage(ExportUsageRequest(**asked)):
            click.echo(part.data, nl=False)
