"""Encrypts users' provider keys. A ciphertext says whose it is, so that it is worth nothing in another row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

PREFIX_CHARS = 6


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider key in plaintext. Its repr and str never show it."""

    _plaintext: str

    def reveal(self) -> str:
        """Return the plaintext. Every caller of this is a place to audit."""
        return self._plaintext

    @property
    def prefix(self) -> str:
        """The first characters, to recognise it by."""
        return self._plaintext[:PREFIX_CHARS]

    def __repr__(self) -> str:
        return "Credential(…)"


class DecryptionError(Exception):
    """The ciphertext was made with a key not known here, was altered, or belongs to another user or provider."""


class Cipher:
    """Fernet with several keys: the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, credential: Credential, *, user_id: UUID, provider_id: UUID) -> str:
        """Encrypt for this user and provider."""
        payload = json.dumps([str(user_id), str(provider_id), credential.reveal()])
        return self._fernet.encrypt(payload.encode()).decode("ascii")

    def decrypt(self, ciphertext: str, *, user_id: UUID, provider_id: UUID) -> Credential:
        """Decrypt; DecryptionError unless it was encrypted for this very user and provider."""
        try:
            user, provider, plaintext = json.loads(self._fernet.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError):
            raise DecryptionError("the stored key cannot be decrypted") from None
        if (user, provider) != (str(user_id), str(provider_id)):
            raise DecryptionError("the stored key belongs to another user or provider")
        return Credential(plaintext)
