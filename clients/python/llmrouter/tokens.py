"""Tokens: where they come from, when they are renewed, and how they are kept from being shown."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LEEWAY_S = 30.0
"""How long before it expires a remembered token is renewed."""


class Secret(str):
    """A text that does not show itself: in a traceback's variables, for instance."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class RefreshingToken:
    """A token that is fetched when it is needed and kept until shortly before it expires; for many threads.

    `fetch` returns a new JSON Web Token. It is asked again 30 seconds before the token's `exp`, and at once when the
    server has refused the token. One thread fetches while the others wait.

    >>> token = RefreshingToken(lambda: "a.b.c")
    >>> token(), token() == "a.b.c", token
    ('***', True, <RefreshingToken>)
    """

    def __init__(self, fetch: Callable[[], str], *, clock: Callable[[], float] = time.time) -> None:
        self._fetch, self._clock, self._lock = fetch, clock, threading.Lock()
        self._kept: _Kept | None = None

    def __call__(self) -> str:
        with self._lock:
            if self._kept is None or self._kept.is_over(self._clock()):
                self._kept = _Kept(self._fetch())
            return self._kept.token

    def forget(self, token: str) -> None:
        """Fetch a new one for the next call, unless this one has been replaced already."""
        with self._lock:
            if self._kept is not None and self._kept.token == token.strip():
                self._kept = None

    def __repr__(self) -> str:
        return "<RefreshingToken>"


class AsyncRefreshingToken:
    """A RefreshingToken for one event loop: `fetch` is asynchronous, one task fetches while the others wait."""

    def __init__(self, fetch: Callable[[], Awaitable[str]], *, clock: Callable[[], float] = time.time) -> None:
        self._fetch, self._clock, self._lock = fetch, clock, asyncio.Lock()
        self._kept: _Kept | None = None

    async def __call__(self) -> str:
        async with self._lock:
            if self._kept is None or self._kept.is_over(self._clock()):
                self._kept = _Kept(await self._fetch())
            return self._kept.token

    def forget(self, token: str) -> None:
        """Fetch a new one for the next call, unless this one has been replaced already."""
        if self._kept is not None and self._kept.token == token.strip():
            self._kept = None

    def __repr__(self) -> str:
        return "<AsyncRefreshingToken>"


class _Kept:
    __slots__ = ("_until", "token")

    def __init__(self, token: str) -> None:
        self.token = Secret(token.strip())
        expires = expiry_of(self.token)
        self._until = None if expires is None else expires - LEEWAY_S

    def is_over(self, now: float) -> bool:
        return self._until is not None and now >= self._until


def expiry_of(token: str) -> float | None:
    """Return when a JSON Web Token expires, in seconds since 1970, or None when it does not say so.

    Nothing is verified: that is the server's part.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expires = claims.get("exp") if isinstance(claims, dict) else None
    return float(expires) if isinstance(expires, int | float) else None


def require_token(token: object) -> None:
    """Refuse what cannot give a token: TypeError, which does not show it."""
    if not isinstance(token, str) and not callable(token):
        raise TypeError(f"token must be a str or a function that returns one, not a {type(token).__name__}")


def bearer(token: str) -> Secret:
    """Return what the header `authorization` says; white space around the token, as of a file's end, is removed.

    ValueError, which does not show it, for a token that no header can hold; TypeError for what is no text.
    """
    if not isinstance(token, str):
        raise TypeError(f"the token is missing: the function returned a {type(token).__name__} and not a str")
    stripped = token.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ValueError("the token is empty or holds characters that no token has")
    return Secret(f"Bearer {stripped}")
