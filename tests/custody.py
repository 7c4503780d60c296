"""Everything that keeps keys, wired as the server wires it, over a test's database."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from llmrouter_server.audit.log import AuditLog
from llmrouter_server.audit.store import KeyReadStore
from llmrouter_server.byok.cipher import Cipher, Credential
from llmrouter_server.byok.credentials import Credentials
from llmrouter_server.byok.platform import PlatformKeyStore
from llmrouter_server.byok.probe import Probe
from llmrouter_server.byok.service import ByokService, CredentialService
from llmrouter_server.byok.store import KeyStore
from llmrouter_server.byok.verification import KeyVerifier
from llmrouter_server.runtime import interceptor
from llmrouter_server.runtime.auth import Caller, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmrouter_server.runtime.database import Database

CANARY = "sk-canary-0123456789abcdef"
NOT_TO_BE_SEEN = "canary-"


@dataclass
class Custody:
    database: Database
    cipher: Cipher
    keys: KeyStore
    platform: PlatformKeyStore
    audit: AuditLog
    credentials: Credentials
    byok: ByokService
    service: CredentialService
    changed: list[uuid.UUID]
    """Users whom the service has told to be forgotten."""

    async def provider(self, *, endpoint: str = "https://api.example.com/v1", **values: Any) -> uuid.UUID:
        """Add a provider."""
        columns = {"provider_type": "openai", "requires_byok": True, "is_enabled": True} | values
        async with self.database.connection() as connection:
            return await connection.fetchval(
                "insert into llm_providers (name, provider_type, api_endpoint, requires_byok, is_enabled)"
                " values ($1, $2, $3, $4, $5) returning id",
                f"test {uuid.uuid4()}",
                columns["provider_type"],
                endpoint,
                columns["requires_byok"],
                columns["is_enabled"],
            )

    async def store(self, user: uuid.UUID, provider: uuid.UUID, plaintext: str = CANARY) -> uuid.UUID:
        """Store a key without counting it as a write."""
        credential = Credential(plaintext)
        key, _ = await self.keys.store(
            user_id=user,
            provider_id=provider,
            ciphertext=self.cipher.encrypt(credential, user_id=user, provider_id=provider),
            prefix=credential.prefix,
            metadata={},
        )
        return key.id

    async def reads(self, user: uuid.UUID) -> list[dict[str, Any]]:
        """Return the audit's rows of a user, oldest first."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "select key_id, provider_id, payer, reader_id, purpose, decision_id, read_at from llm_key_reads"
                " where user_id = $1 order by month, sequence",
                user,
            )
        return [dict(row) for row in rows]

    async def execute(self, statement: str, *values: Any) -> None:
        """Change the database behind the server's back."""
        async with self.database.connection() as connection:
            await connection.execute(statement, *values)


@asynccontextmanager
async def custody(database: Database, *, total_s: float = 8.0, allow_private: bool = True) -> AsyncIterator[Custody]:
    """Wire it, with providers on this machine allowed."""
    cipher, keys = Cipher([Fernet.generate_key().decode()]), KeyStore(database)
    audit = AuditLog(KeyReadStore(database))
    credentials = Credentials(keys, cipher, audit, lambda: datetime.now(UTC))
    probe = Probe(allow_private=allow_private, total_s=total_s)
    verifier = KeyVerifier(keys, credentials, probe, lambda: datetime.now(UTC))
    changed: list[uuid.UUID] = []
    await audit.start()
    yield Custody(
        database=database,
        cipher=cipher,
        keys=keys,
        platform=PlatformKeyStore(database, cipher),
        audit=audit,
        credentials=credentials,
        byok=ByokService(keys, cipher, verifier, changed.append),
        service=CredentialService(credentials),
        changed=changed,
    )
    await audit.stop()


@contextmanager
def calling(user: uuid.UUID, role: Role = Role.USER) -> Iterator[None]:
    """Be this caller, as the interceptor would have it."""
    token = interceptor._caller.set(Caller(user, frozenset({role})))
    try:
        yield
    finally:
        interceptor._caller.reset(token)


class StubContext:
    """What a service may do with the call it answers."""

    def __init__(self) -> None:
        self.headers: tuple[tuple[str, str], ...] = ()

    async def send_initial_metadata(self, headers: tuple[tuple[str, str], ...]) -> None:
        self.headers = headers

    def time_remaining(self) -> None:
        """Return that the caller has set no deadline."""
