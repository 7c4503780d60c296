from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.byok.cipher import Cipher, Credential, DecryptionError, read_credential
from llmrouter_server.errors import DomainError
from llmrouter_server.runtime.fields import Fields

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


@pytest.mark.parametrize("payload", [5, None, "abc", [], ["a", "b"], [str(USER), str(PROVIDER), 5], {"a": 1, "b": 2}])
def test_a_payload_of_another_shape_is_refused(payload: Any) -> None:
    ciphertext = Fernet(NEW).encrypt(json.dumps(payload).encode()).decode()
    with pytest.raises(DecryptionError):
        Cipher([NEW]).decrypt(ciphertext, user_id=USER, provider_id=PROVIDER)


def test_a_ciphertext_is_current_only_when_the_first_key_made_it() -> None:
    old, rotated = Cipher([OLD]), Cipher([NEW, OLD])
    before = old.encrypt(Credential("sk-proj-0123456789"), user_id=USER, provider_id=PROVIDER)
    assert (old.is_current(before), rotated.is_current(before)) == (True, False)
    after = rotated.reencrypt(before, user_id=USER, provider_id=PROVIDER)
    assert (old.is_current(after), rotated.is_current(after)) == (False, True)
    assert Cipher([NEW]).decrypt(after, user_id=USER, provider_id=PROVIDER).reveal() == "sk-proj-0123456789"
    assert not any(rotated.is_current(garbage) for garbage in ("", "x", "é", before[:-1]))


def test_reencrypting_mends_no_ciphertext_that_was_moved() -> None:
    cipher = Cipher([NEW, OLD])
    moved = Cipher([OLD]).encrypt(Credential("sk-proj-0123456789"), user_id=USER, provider_id=PROVIDER)
    with pytest.raises(DecryptionError, match="belongs to another"):
        cipher.reencrypt(moved, user_id=PROVIDER, provider_id=USER)


@pytest.mark.parametrize("value", ["k" * 16, "k" * 512, f"  {'k' * 16}\n", "!\"#$%&'()*+,-./:"])
def test_a_key_is_read_without_the_white_space_around_it(value: str) -> None:
    fields = Fields()
    assert read_credential(fields, "api_key", value).reveal() == value.strip()
    fields.done()


@pytest.mark.parametrize(
    "value", ["", "canary-" + "k" * 8, "canary-" + "k" * 506, "canary-" + "k k" * 9, "canary-é" * 9]
)
def test_a_key_that_is_none_is_refused_without_being_repeated(value: str) -> None:
    fields = Fields()
    read_credential(fields, "platform.api_key", value)
    with pytest.raises(DomainError, match=r"^platform\.api_key: must be 16 to 512") as error:
        fields.done()
    assert "canary" not in f"{error.value} {error.value!r}"
