"""Tokens and keys of an issuer of the tests, good and changed, and the issuer itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.auth import KeySet, TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ISSUER, AUDIENCE, NOW = "https://issuer.test", "llmrouter", 1_800_000_000
USER, OTHER = uuid.UUID("0190c0de-0000-7000-8000-000000000001"), uuid.UUID("0190c0de-0000-7000-8000-000000000002")
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "exp": NOW + 600, "roles": ["user"]}
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
NEW_KEY = ed25519.Ed25519PrivateKey.generate()
UNKNOWN = "the token is signed with a key that is not known here"


def segment(part: object) -> str:
    raw = part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(alg: str = "EdDSA", /, key: Any = None, *, header: Any = None, payload: Any = None, **changes: Any) -> str:
    """Sign a token that is good but for the changes; a claim changed to None is left out."""
    claims = {name: value for name, value in (GOOD | changes).items() if value is not None}
    header = {"alg": alg, "kid": alg} if header is None else header
    unsigned = f"{segment(header)}.{segment(claims if payload is None else payload)}"
    return f"{unsigned}.{segment(jwt.get_algorithm_by_name(alg).sign(unsigned.encode(), key or PRIVATE[alg]))}"


def new_token(kid: str = "new", **more: object) -> str:
    return token(key=NEW_KEY, header={"alg": "EdDSA", "kid": kid} | more)


def jwk(alg: str = "EdDSA", /, key: Any = None, **changes: object) -> dict[str, Any]:
    """Return the public key with its algorithm for an id; a member changed to None is left out."""
    public = jwt.get_algorithm_by_name(alg).to_jwk((key or PRIVATE[alg]).public_key(), as_dict=True)
    members = public | {"kid": alg, "alg": alg, "use": "sig"} | changes
    return {name: value for name, value in members.items() if value is not None}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


ALL_KEYS = jwks(*(jwk(alg) for alg in PRIVATE))
WITH_NEW_KEY = jwks(jwk(), jwk(key=NEW_KEY, kid="new"))


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


STANDING = Clock()


@contextlib.asynccontextmanager
async def verifying(source: object, clock: Clock = STANDING, path: str = "roles") -> AsyncIterator[TokenVerifier]:
    keys = KeySet(str(source), clock=clock)
    await keys.start()
    yield TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE, roles_claim=tuple(path.split(".")), clock=clock)
    await keys.stop()


async def user_of(verifier: TokenVerifier, good: str) -> uuid.UUID:
    return (await verifier.verify(good)).user_id


async def refusal(verifier: TokenVerifier, bad: str) -> str:
    """Return why the token is refused."""
    with pytest.raises(DomainError) as raised:
        await verifier.verify(bad)
    error = raised.value
    assert (error.reason, error.code) == ("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED)
    assert not [part for part in bad.split(".") if len(part) > 20 and part in error.message]
    return error.message


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass
class Issuer:
    """Gives every request the same reply, when the gate is open; or drips it, a byte every 20 ms."""

    reply: bytes
    drips: bool
    asked: int = 0
    left: int = 0
    url: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await self.gate.wait()
            for piece in (bytes([byte]) for byte in self.reply) if self.drips else (self.reply,):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02 * self.drips)
        writer.close()
        self.left += 1


@contextlib.asynccontextmanager
async def issuer(reply: bytes, *, drips: bool = False) -> AsyncIterator[Issuer]:
    made = Issuer(reply, drips)
    made.gate.set()
    listener = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/jwks.json"
    try:
        yield made
    finally:
        listener.close()
        made.gate.set()
        for writer in made.writers:
            writer.transport.abort()
        await until(lambda: made.left == made.asked)
