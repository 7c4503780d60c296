"""What a reader of fields complains about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.errors import DomainError, FieldViolation
from llmrouter_server.runtime.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable


def problems(read: Callable[[Fields], object]) -> list[FieldViolation]:
    """Return what the reader found wrong."""
    fields = Fields()
    read(fields)
    try:
        fields.done()
    except DomainError as error:
        return list(error.violations)
    return []


def is_good(read: Callable[[Fields], object]) -> bool:
    return problems(read) == []
