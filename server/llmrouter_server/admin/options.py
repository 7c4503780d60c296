"""What the parts of the command line have in common; imports nothing but click."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    default=Path(".llmrouter"),
    envvar="LLMROUTER_HOME",
    show_default=True,
    show_envvar=True,
    help="Folder of the local stack's data, keys and logs.",
)


WEIGHT_SUM_TOLERANCE = 0.001 + 1e-12


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Say it in one line on stderr and exit."""
    click.echo(f"llmrouter: {message}", err=True)
    sys.exit(exit_code)


def three_weights(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    """Return the weights of cost, latency and quality: each from 0 to 1, together 1 (within 0.001)."""
    if value is None:
        return None
    try:
        cost, latency, quality = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not three numbers such as 0.6,0.2,0.2") from None
    if not all(0 <= weight <= 1 for weight in (cost, latency, quality)):
        raise click.BadParameter("each weight must be from 0 to 1")
    if not abs(cost + latency + quality - 1) <= WEIGHT_SUM_TOLERANCE:
        raise click.BadParameter(f"the three weights must sum to 1, not {cost + latency + quality:.6g}")
    return cost, latency, quality


class LazyGroup(click.Group):
    """A group some of whose commands are imported only when they are asked for."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, str], **options: Any) -> None:  # noqa: ANN401 - click's own
        """Take the place of each such command, as `module:name`."""
        super().__init__(*arguments, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command
