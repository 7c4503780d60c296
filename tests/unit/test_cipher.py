from __future__ import annotations

import uuid

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.byok.cipher import Cipher, Credential, DecryptionError

USER, PROVIDER = uuid.UUID(int=1), uuid.UUID(int=2)
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=512))
def test_what_is_encrypted_decrypts_and_never_shows(plaintext: str) -> None:
    cipher = Cipher([NEW])
    ciphertext = cipher.encrypt(Credential(plaintext), user_id=USER, provider_id=PROVIDER)
    assert plaintext not in ciphertext
    assert cipher.decrypt(ciphertext, user_id=USER, provider_id=PROVIDER).reveal() == plaintext


def test_a_ciphertext_moved_to_another_row_does_not_decrypt() -> None:
    cipher = Cipher([NEW])
    ciphertext = cipher.encrypt(Credential("sk-proj-0123456789"), user_id=USER, provider_id=PROVIDER)
    for user, provider in ((uuid.UUID(int=3), PROVIDER), (USER, uuid.UUID(int=3)), (PROVIDER, USER)):
        with pytest.raises(DecryptionError, match="belongs to another"):
            cipher.decrypt(ciphertext, user_id=user, provider_id=provider)


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before = Cipher([OLD]).encrypt(Credential("sk-proj-0123456789"), user_id=USER, provider_id=PROVIDER)
    rotated = Cipher([NEW, OLD])
    assert rotated.decrypt(before, user_id=USER, provider_id=PROVIDER).reveal() == "sk-proj-0123456789"
    after = rotated.encrypt(Credential("sk-proj-0123456789"), user_id=USER, provider_id=PROVIDER)
    assert Cipher([NEW]).decrypt(after, user_id=USER, provider_id=PROVIDER).prefix == "sk-pro"
    with pytest.raises(DecryptionError, match="cannot be decrypted"):
        Cipher([OLD]).decrypt(after, user_id=USER, provider_id=PROVIDER)


@pytest.mark.parametrize("spoiled", ["", "x", "gAAAA", "é"])
def test_garbage_is_refused(spoiled: str) -> None:
    with pytest.raises(DecryptionError):
        Cipher([NEW]).decrypt(spoiled, user_id=USER, provider_id=PROVIDER)


def test_a_credential_hides_itself() -> None:
    credential = Credential("sk-proj-0123456789")
    for shown in (repr(credential), str(credential), f"{credential}", f"{credential!r}", repr([credential])):
        assert "sk-proj" not in shown
