from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import jwt
import pytest

from llmrouter_server.runtime.dev_identity import AUDIENCE, ISSUER, ROLES, DevIdentity, IdentityError, RoleName

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def identity(tmp_path: Path) -> DevIdentity:
    return DevIdentity.load_or_create(tmp_path / "identity")


def verified(token: str, identity: DevIdentity) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_dict(json.loads(identity.jwks_file.read_text())).keys
    claims: dict[str, object] = jwt.decode(
        token, keys[0], algorithms=["EdDSA"], issuer=ISSUER, audience=AUDIENCE, options={"require": ["exp", "sub"]}
    )
    return claims


@pytest.mark.parametrize("role", ROLES)
def test_a_token_verifies_with_the_published_keys(identity: DevIdentity, role: RoleName) -> None:
    claims = verified(identity.mint(role), identity)
    assert claims["roles"] == [role]
    assert claims["sub"] == str(identity.users[role])


def test_a_token_can_be_for_a_named_user_and_time(identity: DevIdentity) -> None:
    user = uuid.uuid4()
    claims = verified(identity.mint("user", user, 60), identity)
    assert claims["sub"] == str(user)
    assert claims["exp"] == claims["iat"] + 60  # type: ignore[operator]


def test_the_identity_is_made_once(identity: DevIdentity, tmp_path: Path) -> None:
    again = DevIdentity.load_or_create(tmp_path / "identity")
    assert again.users == identity.users
    assert verified(again.mint(), identity)


def test_the_roles_have_different_users(identity: DevIdentity) -> None:
    assert len(set(identity.users.values())) == len(ROLES)


def test_only_the_owner_can_read_it_and_no_draft_is_left(identity: DevIdentity, tmp_path: Path) -> None:
    folder = identity.jwks_file.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert list(tmp_path.iterdir()) == [folder]


def test_the_private_key_is_not_published(identity: DevIdentity) -> None:
    (key,) = json.loads(identity.jwks_file.read_text())["keys"]
    assert "d" not in key


def test_without_an_identity_it_says_to_run_up(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="run make up first"):
        DevIdentity.load(tmp_path / "identity")


@pytest.mark.parametrize("name", ["private_key.pem", "jwks.json", "users.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\x00"])
def test_a_damaged_identity_is_named(identity: DevIdentity, name: str, content: bytes | None) -> None:
    folder = identity.jwks_file.parent
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(IdentityError, match=r"(damaged|incomplete): remove it"):
        DevIdentity.load_or_create(folder)
