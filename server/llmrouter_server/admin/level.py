"""Power levels on the command line."""

# ruff: noqa: PLC0415 - the messages are imported when a command runs

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llmrouter.v2.power_level_pb2 import PowerLevel

LEVEL = click.Choice(["ECO", "BALANCED", "PRECISION"], case_sensitive=False)


def level_of(name: str | None) -> PowerLevel.ValueType:
    """Return the power level of this name, unspecified without one."""
    from llmrouter.v2.power_level_pb2 import POWER_LEVEL_UNSPECIFIED, PowerLevel

    return POWER_LEVEL_UNSPECIFIED if name is None else PowerLevel.Value(name)


def level_name(level: PowerLevel.ValueType) -> str:
    """Return the name of a power level, nothing for an unspecified one."""
    from llmrouter.v2.power_level_pb2 import PowerLevel

    return PowerLevel.Name(level) if level else ""
