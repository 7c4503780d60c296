"""What the benchmark has to know of a rival."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Say = Callable[[str], object]

CHAT = "/v1/chat/completions"


class UnavailableError(Exception):
    """A rival cannot be had or started here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a gateway is asked for the mock provider's model."""

    port: int
    path: str = CHAT
    model: str = "auto"
    tokens: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a rival is started.

    port_line: finds the port in what it writes, for one that chooses by itself; the target's counts otherwise.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    target: Target
    port_line: re.Pattern[str] | None = None


class Rival(Protocol):
    """Set up by its own documentation."""

    name: str
    version: str
    on: str
    """What it does to a request, in the report's words."""
    off: str
    """What it could do and does not here, and why."""
    asks_who: bool
    """Whether it is to refuse a request with a wrong token."""

    def install(self, cache: Path, say: Say) -> Path:
        """Have it installed in a folder of the cache, once; return that. UnavailableError: it cannot be had."""
        ...

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        """Write what it has to read into `home`, and return how to start it."""
        ...
