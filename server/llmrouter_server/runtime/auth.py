"""Who is calling: verifies JSON Web Tokens (RFC 7519) against a key set (RFC 7517) and remembers good ones."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import json
import logging
import sys
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from asyncpg.pgproto import pgproto

from llmrouter_server import errors

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256", "EdDSA")
CLOCK_SKEW_S = 10
MAX_TOKEN_CHARS = 16_384
MAX_CACHED_TOKENS = 10_000
REFRESH_INTERVAL_S = 300.0
MIN_REFRESH_GAP_S = 5.0
"""How often a token signed with an unknown key may make the key set be read again."""
FETCH_TIMEOUT_S = 5.0
"""How long a whole read of the key set may take."""
MAX_JWKS_BYTES = 1_048_576


class Role(enum.Enum):
    """What a token allows. A token can have several."""

    USER = "user"
    ADMIN = "admin"
    SERVICE = "service"


ONLY_SERVICE = frozenset({Role.SERVICE})


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified sender of a call."""

    user_id: uuid.UUID
    roles: frozenset[Role]

    def acts_for(self, requested_user_id: str) -> uuid.UUID:
        """Return the user a call is about: the one a service names, else the caller.

        Errors: INVALID_FIELD when it is no UUID, or a service names nobody; ROLE_REQUIRED when another user is named
        without the role service.
        """
        if not requested_user_id:
            if self.roles == ONLY_SERVICE:
                raise errors.invalid(("user_id", "is required from the role service"))
            return self.user_id
        try:
            user_id = uuid.UUID(requested_user_id)
        except ValueError:
            raise errors.invalid(("user_id", "must be a UUID")) from None
        if user_id != self.user_id and Role.SERVICE not in self.roles:
            raise errors.role_required("only the role service may name another user")
        return user_id


class KeySet:
    """The issuer's public keys, from a file or a URL; read again from time to time and when an unknown one is seen."""

    def __init__(self, source: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self.version = 0
        """Counts the different key sets seen so far."""

    async def start(self) -> None:
        """Read the keys, and go on reading them in the background. A failure is logged and tried again."""
        await self._read()
        self._refresher = asyncio.create_task(self._refresh(), name="key set refresher")

    async def stop(self) -> None:
        """Stop reading."""
        for task in (self._refresher, self._reading):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def find(self, key_id: str | None) -> jwt.PyJWK | None:
        """Return the key with this id; when the token names none, the one without an id or the only one there is."""
        key = self._known(key_id)
        if key is None:
            await self._read(gap_s=MIN_REFRESH_GAP_S)
            key = self._known(key_id)
        return key

    def _known(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_S)
            await self._read()

    async def _read(self, *, gap_s: float = 0.0) -> None:
        """Wait for the read under way, or a new one if the last began at least `gap_s` ago.

        It goes on when the one who waits gives up, so that nobody can keep the others from new keys.
        """
        if (self._reading is None or self._reading.done()) and self._clock() - self._tried_at >= gap_s:
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._read_now(), name="key set reader")
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read_now(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = await asyncio.to_thread(_load, self._source)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the old keys stay and reading goes on
            log.warning("the key set cannot be read", extra={"error": f"{type(error).__name__}: {error}"})
            return
        if {_thumbprint(key) for key in keys.values()} != {_thumbprint(key) for key in self._keys.values()}:
            self.version += 1
        self._keys = keys


class TokenVerifier:
    """Turns tokens into callers. A verified token is remembered by its hash until it expires or the keys change."""

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        audience: str,
        roles_claim: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys, self._issuer, self._audience, self._roles_claim = keys, issuer, audience, roles_claim
        self._clock = clock
        self._verified: dict[bytes, tuple[Caller, float]] = {}
        self._verified_with = 0

    async def verify(self, token: str) -> Caller:
        """Return who the token speaks for; UNAUTHENTICATED, with a reason fit for the caller, when it is not good."""
        if len(token) > MAX_TOKEN_CHARS:
            raise errors.unauthenticated("the token is too long")
        if self._verified_with != self._keys.version:
            self._verified.clear()
            self._verified_with = self._keys.version
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        known = self._verified.get(digest)
        if known is not None and known[1] > self._clock():
            return known[0]
        caller, expires_at = await self._verify(token)
        if len(self._verified) >= MAX_CACHED_TOKENS:
            del self._verified[next(iter(self._verified))]  # the one verified longest ago
        self._verified[digest] = (caller, expires_at)
        return caller

    async def _verify(self, token: str) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise errors.unauthenticated(f"the token must be signed with {', '.join(ALGORITHMS)}")
            key = await self._keys.find(header.get("kid"))
            if key is None or key.algorithm_name != header["alg"]:
                raise errors.unauthenticated("the token is signed with a key that is not known here")
            claims = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                issuer=self._issuer,
                audience=self._audience,
                options={
                    "require": ["exp", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, UnicodeError) as error:
            raise errors.unauthenticated(f"the token is not valid: {_why(error)}") from None
        now = self._clock()
        expires_at = _time_claim(claims, "exp")
        if expires_at + CLOCK_SKEW_S <= now:
            raise errors.unauthenticated("the token has expired")
        if "nbf" in claims and _time_claim(claims, "nbf") - CLOCK_SKEW_S > now:
            raise errors.unauthenticated("the token is not valid yet")
        try:
            user_id = pgproto.UUID(uuid.UUID(claims["sub"]).bytes)  # the driver's, six times as fast to write
        except (ValueError, AttributeError, TypeError):
            raise errors.unauthenticated("the token's sub is no UUID") from None
        return Caller(user_id, _roles(claims, self._roles_claim)), expires_at


def _load(source: str) -> dict[str | None, jwt.PyJWK]:
    found = jwt.PyJWKSet([member for member in json.loads(_fetch(source))["keys"] if _is_readable(member)]).keys
    keys = {key.key_id: key for key in found if key.algorithm_name in ALGORITHMS}
    if not keys:
        raise ValueError("no key in the key set can be used here")
    return keys


def _fetch(source: str) -> bytes:
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    if source.startswith(("https://", "http://")):
        opened = urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_S)  # noqa: S310 - the operator's URL
    else:
        opened = Path(source).open("rb")  # noqa: SIM115 - closed below
    text = b""
    with opened as stream:
        while part := stream.read1(MAX_JWKS_BYTES):  # what is there; the timeout above is for each piece
            text += part
            if len(text) > MAX_JWKS_BYTES:
                raise ValueError("the key set is larger than 1 MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
    return text


def _is_readable(member: object) -> bool:
    """Tell whether PyJWT can be given the key: some that it cannot use would cost it all the others."""
    return (
        isinstance(member, dict)
        and isinstance(member.get("kid"), str | None)
        and member.get("alg") in (None, *ALGORITHMS)
        and "d" not in member  # a private key: whoever could read it here can sign with it
    )


def _thumbprint(key: jwt.PyJWK) -> tuple[str | None, str]:
    return key.key_id, hashlib.sha256(repr(sorted(key._jwk_data.items())).encode()).hexdigest()  # noqa: SLF001


def _why(error: Exception) -> str:
    """Return the library's sentence for the known mistakes; never text that may repeat the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the claim {error.claim} is missing"
    sentences: tuple[tuple[type[Exception], str], ...] = (
        (jwt.InvalidAudienceError, "it is for another audience"),
        (jwt.InvalidIssuerError, "it is from another issuer"),
        (jwt.InvalidSignatureError, "its signature does not match"),
    )
    return next((sentence for kind, sentence in sentences if isinstance(error, kind)), "it cannot be read")


def _time_claim(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # NaN compares with nothing
        raise errors.unauthenticated(f"the token's {name} is no number")
    return float(value)


def _roles(claims: dict[str, Any], path: tuple[str, ...]) -> frozenset[Role]:
    value: Any = claims
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    known = {role.value: role for role in Role}
    return frozenset(known[name] for name in names if isinstance(name, str) and name in known)
