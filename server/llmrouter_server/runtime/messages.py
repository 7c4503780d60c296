"""Writes protobuf's well-known types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


def timestamp(moment: datetime) -> Timestamp:
    """Make a Timestamp of an aware datetime, to the microsecond."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def struct(value: Mapping[str, object]) -> Struct:
    """Make a Struct of a JSON object."""
    as_dict: dict[str, Any] = dict(value)
    return json_format.ParseDict(as_dict, Struct())
