"""The development identity: a key pair, its public key set, and tokens signed with it. Never used in production."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmrouter_server.runtime.local_secrets import write_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUER = "llmrouter-dev"
AUDIENCE = "llmrouter"
ALGORITHM = "EdDSA"
"""Small and deterministic; Envoy's jwt_authn verifies it too."""
DEFAULT_TTL_S = 24 * 3600

RoleName = Literal["user", "admin", "service"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)

_PRIVATE_KEY, _JWKS, _USERS = "private_key.pem", "jwks.json", "users.json"


class IdentityError(Exception):
    """There is no development identity to use; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class DevIdentity:
    """What `llmrouter up` signs development tokens with."""

    jwks_file: Path
    users: Mapping[RoleName, uuid.UUID]
    """The user whom a token of each role is for when none is named; the same from run to run."""
    _key: Ed25519PrivateKey
    _key_id: str

    @classmethod
    def load(cls, folder: Path) -> DevIdentity:
        """Read the identity; IdentityError when there is none or it is damaged."""
        try:
            key = serialization.load_pem_private_key((folder / _PRIVATE_KEY).read_bytes(), password=None)
            key_id = json.loads((folder / _JWKS).read_text(encoding="utf-8"))["keys"][0]["kid"]
            users = json.loads((folder / _USERS).read_text(encoding="utf-8"))
            if not isinstance(key, Ed25519PrivateKey):
                raise TypeError("not an Ed25519 key")  # noqa: TRY301 - one except clause says it for all
            return cls(folder / _JWKS, {role: uuid.UUID(users[role]) for role in ROLES}, key, key_id)
        except (FileNotFoundError, NotADirectoryError):
            if folder.is_dir():
                raise IdentityError(f"{folder} is incomplete: remove it and run make up again") from None
            raise IdentityError(f"there is no identity in {folder} yet: run make up first") from None
        except PermissionError:
            raise IdentityError(f"{folder} cannot be read by this account: use the one that ran make up") from None
        except (ValueError, TypeError, LookupError, AttributeError, OSError):
            raise IdentityError(f"{folder} is damaged: remove it and run make up again") from None

    @classmethod
    def load_or_create(cls, folder: Path) -> DevIdentity:
        """Read the identity, making it first when there is none. It appears whole or not at all."""
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))  # mode 0700
            try:
                _write(draft)
                draft.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster, and its identity is the one
                    raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return cls.load(folder)

    def mint(self, role: RoleName = "user", user: uuid.UUID | None = None, ttl_s: int = DEFAULT_TTL_S) -> str:
        """Return a token for the user, by default the role's own, which expires in so many seconds."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user or self.users[role]),
            "roles": [role],
            "iat": now,
            "exp": now + ttl_s,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._key_id})


def _write(folder: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwks = {"keys": [{**public, "kid": f"dev-{uuid.uuid4()}", "use": "sig", "alg": ALGORITHM}]}
    users = {role: str(uuid.uuid4()) for role in ROLES}
    for name, text in ((_PRIVATE_KEY, pem), (_JWKS, json.dumps(jwks)), (_USERS, json.dumps(users))):
        write_secret(folder / name, text)
