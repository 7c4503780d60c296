"""Power levels on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2 import power_level_pb2
from llmrouter_server.catalog.snapshot import PowerLevel

if TYPE_CHECKING:
    from llmrouter_server.runtime.fields import Fields

_MESSAGES = {level: power_level_pb2.PowerLevel.Value(level.name) for level in PowerLevel}


def read_power_level(fields: Fields, path: str, value: int) -> PowerLevel | None:
    """Read a power level; None when it is not given."""
    if value == power_level_pb2.POWER_LEVEL_UNSPECIFIED:
        return None
    try:
        return PowerLevel(value)
    except ValueError:
        fields.wrong(path, "must be ECO, BALANCED or PRECISION")
        return None


def power_level_message(level: PowerLevel) -> power_level_pb2.PowerLevel.ValueType:
    """Write a power level."""
    return _MESSAGES[level]
