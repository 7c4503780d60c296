"""Reads a request's body as one JSON object, so strictly that no other reader can read it differently."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from llmrouter_server import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH = 64
"""Most objects and lists within each other, the body's own object included."""
MAX_BRACKETS = 200_000
MAX_COMMAS = 1_000_000
"""Most of `[`, of `{` and of `,` in a body, in its texts too: a bound on the time that reading it takes from everyone
else. A text with so many of them is too long for every model."""
_FEW = 32
_MAX_QUOTED_CHARS = 40
_beginning = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*(\}?)[ \t\n\r]*").match
_colon = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_comma_or_end = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*").match


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the body's object."""

    value: object
    raw: bytes | memoryview
    """Name and value as they were written, in UTF-8: good JSON, so it can be sent on without being made anew."""


def read_object(body: bytes) -> Mapping[str, Member]:
    """Read the members of the body's object, in their order.

    MALFORMED_REQUEST: no UTF-8, no JSON (RFC 8259), no object, a key twice in one object at any depth, a number that
    is none or that no double can hold, more than MAX_DEPTH levels, or too many values.
    """
    if len(body) > MAX_BRACKETS:
        _check_count(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise malformed(f"the body is not UTF-8: byte {error.start} is wrong") from None
    try:
        members = _members(text, memoryview(body) if text.isascii() else None)
    except json.JSONDecodeError as error:
        raise malformed(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's own bound on the digits of an integer
        raise malformed("the body has a number with too many digits") from None
    if _has_more(body, b"[", _FEW) or _has_more(body, b"{", _FEW):
        _check_depth(members)
    return members


def malformed(message: str) -> errors.DomainError:
    """MALFORMED_REQUEST, with what is wrong."""
    return dataclasses.replace(errors.malformed_request(), message=message)


def _members(text: str, ascii_body: memoryview | None) -> dict[str, Member]:
    members: dict[str, Member] = {}
    sign = _beginning(text)
    if sign is None:
        raise malformed("the body must be a JSON object")
    while sign[1] != "}":
        start = sign.end()
        if not text.startswith('"', start):
            raise json.JSONDecodeError("Expecting a name in double quotes", text, start)
        name, end = _DECODER.raw_decode(text, start)
        if name in members:
            raise _twice(name)
        if (sign := _colon(text, end)) is None:
            raise json.JSONDecodeError("Expecting ':'", text, end)
        value, end = _DECODER.raw_decode(text, sign.end())
        members[name] = Member(value, ascii_body[start:end] if ascii_body is not None else text[start:end].encode())
        if (sign := _comma_or_end(text, end)) is None:
            raise json.JSONDecodeError("Expecting ',' or '}'", text, end)
    if sign.end() != len(text):
        raise json.JSONDecodeError("Extra data", text, sign.end())
    return members


def _check_count(body: bytes) -> None:
    limits = ((b"[", MAX_BRACKETS), (b"{", MAX_BRACKETS), (b",", MAX_COMMAS))
    if any(_has_more(body, sign, most) for sign, most in limits):
        raise malformed("the body has too many values")


def _has_more(body: bytes, sign: bytes, most: int) -> bool:
    """Tell whether the sign is there more than `most` times. Where there are few, find is much faster than count."""
    at = 0
    for _ in range(min(most, _FEW) + 1):
        at = body.find(sign, at) + 1
        if not at:
            return False
    return body.count(sign) > most


def _check_depth(members: Mapping[str, Member]) -> None:
    level: list[object] = [member.value for member in members.values()]
    for _ in range(MAX_DEPTH):
        nodes = [node for node in level if isinstance(node, (dict, list))]
        if not nodes:
            return
        level = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
    raise _too_deep()


def _too_deep() -> errors.DomainError:
    return malformed(f"the body is nested more than {MAX_DEPTH} levels deep")


def _twice(name: str) -> errors.DomainError:
    return malformed(f"{json.dumps(name[:_MAX_QUOTED_CHARS])} is there twice in one object")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _twice(name)
            seen.add(name)
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise malformed(f"the number {digits[:_MAX_QUOTED_CHARS]} is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise malformed(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_number)
