"""Answers as tables for people and as JSON for machines."""

# ruff: noqa: PLC0415 - protobuf is imported when a command runs

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T", bound="Message")
GAP = "  "

json_option = click.option("--json", "as_json", is_flag=True, help="JSON, with all fields, instead of a table.")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its heading, and what stands in it for each item. Figures stand to the right."""

    heading: str
    cell: Callable[[T], str]
    right: bool = False


def show_all(items: Iterable[T], columns: Sequence[Column[T]], *, as_json: bool) -> None:
    """Print a list, as a table or as a JSON array."""
    if as_json:
        click.echo(json.dumps([as_dict(item) for item in items], indent=2, ensure_ascii=False))
        return
    rows = [[column.cell(item) for column in columns] for item in items]
    for line in lines_of([[column.heading for column in columns], *rows], [column.right for column in columns]):
        click.echo(line)


def show_one(item: Message, *, as_json: bool) -> None:
    """Print all fields of one thing, a line for each, or as a JSON object."""
    fields = as_dict(item)
    if as_json:
        click.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    rows = [[name, value if isinstance(value, str) else json.dumps(value)] for name, value in fields.items()]
    for line in lines_of(rows, [False, False]):
        click.echo(line)


def as_dict(item: Message) -> dict[str, Any]:
    """Return a message as JSON has it, with the names of the protos, zero values included."""
    from google.protobuf.json_format import MessageToDict

    fields: dict[str, Any] = MessageToDict(
        item, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def lines_of(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> Iterator[str]:
    """Set cells out in columns, whatever they hold: a control character is written as its escape."""
    printable = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*printable, strict=True)]
    for row in printable:
        cells = [_filled(*each) for each in zip(row, widths, right, strict=True)]
        yield GAP.join(cells).rstrip()


def yes_no(value: bool) -> str:
    """Write a truth value."""
    return "yes" if value else "no"


def number(value: float) -> str:
    """Write a whole number with thousands apart."""
    return f"{value:,.0f}"


def money(value: float) -> str:
    """Write US dollars, to the millionth where that is needed."""
    whole, _, cents = f"{value:,.6f}".partition(".")
    return f"{whole}.{cents[:2]}{cents[2:].rstrip('0')}"


def moment(value: Timestamp) -> str:
    """Write a time, in UTC to the second; nothing for one that is not set."""
    return f"{value.ToDatetime(UTC):%Y-%m-%d %H:%M:%S}" if value.seconds else ""


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) > 0 for each in text)


def _filled(cell: str, width: int, right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space
