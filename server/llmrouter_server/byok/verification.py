"""Tries a user's key at its provider, and remembers what came of it."""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.byok.probe import ProbeError
from llmrouter_server.byok.provider_auth import auth_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.byok.cipher import Credential
    from llmrouter_server.byok.credentials import Credentials
    from llmrouter_server.byok.probe import Probe
    from llmrouter_server.byok.store import KeyStore, SealedKey

log = logging.getLogger(__name__)


class Verdict(enum.Enum):
    """What a provider made of a key."""

    WORKS = enum.auto()
    REFUSED = enum.auto()
    UNREACHABLE = enum.auto()
    """The provider could not be asked, or its answer says nothing of the key."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of trying a key."""

    verdict: Verdict
    message: str
    """For people; ours in every word."""
    latency_ms: int = 0
    is_news: bool = False
    """Whether the key was marked, or a mark removed."""


class KeyVerifier:
    """Tries keys."""

    def __init__(self, keys: KeyStore, credentials: Credentials, probe: Probe, now: Callable[[], datetime]) -> None:
        self._keys, self._credentials, self._probe, self._now = keys, credentials, probe, now

    async def verify(self, user_id: UUID, key_id: UUID) -> Verification:
        """Try one of the user's keys. RESOURCE_NOT_FOUND: no such key; INTERNAL, UNAVAILABLE as when it is read."""
        key = await self._keys.find(user_id, key_id)
        if not key.is_enabled:
            return Verification(Verdict.UNREACHABLE, "the provider is disabled here, so it was not asked")
        credential = await self._credentials.open(key, user_id=user_id, reader_id=user_id, purpose="verify")
        started, tried_at = time.perf_counter(), self._now()
        verdict, message = await self._try(key, credential)
        latency_ms = round((time.perf_counter() - started) * 1000)
        log.info("a key was tried", extra={"key_id": str(key_id), "verdict": verdict.name, "why": message})
        is_news = False
        if verdict is not Verdict.UNREACHABLE:
            is_news = await self._keys.mark_tried(key, tried_at if verdict is Verdict.REFUSED else None)
        return Verification(verdict, message, latency_ms, is_news)

    async def _try(self, key: SealedKey, credential: Credential) -> tuple[Verdict, str]:
        auth = auth_of(key.provider_type)
        try:
            status = await self._probe.status(key.api_endpoint.rstrip("/") + auth.check_path, auth.headers(credential))
        except ProbeError as error:
            return Verdict.UNREACHABLE, error.failure.value
        return _judge(status)


def _judge(status: int) -> tuple[Verdict, str]:
    match status:
        case 200:
            return Verdict.WORKS, "the provider took the key"
        case 401 | 403:
            return Verdict.REFUSED, "the provider refused the key"
        case 429:
            return Verdict.UNREACHABLE, "the provider is taking no more requests for now, which says nothing of the key"
        case _ if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110
            return Verdict.UNREACHABLE, "the provider sends elsewhere, where the key was not taken"
        case _ if status >= 500:  # noqa: PLR2004 - RFC 9110
            return Verdict.UNREACHABLE, "the provider has a fault of its own, which says nothing of the key"
        case _:
            return Verdict.UNREACHABLE, "the provider's answer says nothing of the key"
