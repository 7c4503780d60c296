"""Encrypts provider keys. A ciphertext says whose it is, so that it is worth nothing in another row."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.runtime.fields import Fields

PREFIX_CHARS = 6
API_KEY = re.compile(r"[\x21-\x7e]{16,512}")
PLATFORM_USER = UUID(int=0)
"""Stands for the user of a platform key."""


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


def read_credential(fields: Fields, path: str, value: str) -> Credential:
    """Read a key from a request; white space around it is removed. What is wrong is told without the key."""
    credential = Credential(value.strip())
    if not API_KEY.fullmatch(credential.reveal()):
        fields.wrong(path, "must be 16 to 512 printable ASCII characters without spaces")
    return credential


class DecryptionError(Exception):
    """The ciphertext was made with a key not known here, was altered, or belongs to another user or provider."""


class Cipher:
    """Fernet with several keys: the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        fernets = [Fernet(key) for key in keys]
        self._first, self._fernet = fernets[0], MultiFernet(fernets)

    def encrypt(self, credential: Credential, *, user_id: UUID, provider_id: UUID) -> str:
        """Encrypt for this user and provider."""
        payload = json.dumps([str(user_id), str(provider_id), credential.reveal()])
        return self._fernet.encrypt(payload.encode()).decode("ascii")

    def decrypt(self, ciphertext: str, *, user_id: UUID, provider_id: UUID) -> Credential:
        """Decrypt; DecryptionError unless it was encrypted for this very user and provider."""
        try:
            payload = json.loads(self._fernet.decrypt(ciphertext.encode()))
        except (InvalidToken, ValueError):
            raise DecryptionError("the stored key cannot be decrypted") from None
        match payload:
            case [str(user), str(provider), str(plaintext)]:
                if (user, provider) != (str(user_id), str(provider_id)):
                    raise DecryptionError("the stored key belongs to another user or provider")
                return Credential(plaintext)
        raise DecryptionError("the stored key is no key of a user and provider")

    def is_current(self, ciphertext: str) -> bool:
        """Tell whether the first key made the ciphertext. Its signature says so; what it holds is not looked at."""
        try:
            self._first.extract_timestamp(ciphertext.encode())
        except InvalidToken:
            return False
        return True

    def reencrypt(self, ciphertext: str, *, user_id: UUID, provider_id: UUID) -> str:
        """Return the same key encrypted by the first key; DecryptionError as `decrypt`."""
        credential = self.decrypt(ciphertext, user_id=user_id, provider_id=provider_id)
        return self.encrypt(credential, user_id=user_id, provider_id=provider_id)
