"""Python's own values, where the protos have messages for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


def struct_of(value: Mapping[str, object] | None) -> Struct | None:
    """Return a JSON object as a message; ValueError when it holds something that JSON has not.

    >>> struct_of({"team": "search", "seats": 3})["team"]
    'search'
    """
    if value is None:
        return None
    made = Struct()
    made.update(cast("dict[str, Any]", dict(value)))
    return made


def timestamp_of(moment: datetime | None) -> Timestamp | None:
    """Return a moment as a message; ValueError when it has no time zone, and so could be any of many moments."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a datetime without a time zone could be any of many moments: give it one, such as UTC")
    made = Timestamp()
    made.FromDatetime(moment)
    return made
