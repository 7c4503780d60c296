"""How each kind of provider is sent a chat."""

from __future__ import annotations

import pytest

from llmrouter_server.byok.cipher import Credential
from llmrouter_server.byok.provider_auth import BY_PROVIDER_TYPE, auth_of

SEEDED = ("local", "vllm", "groq", "openrouter", "openai", "anthropic", "together", "huggingface")


def test_every_seeded_kind_is_in_the_table() -> None:
    assert set(BY_PROVIDER_TYPE) == set(SEEDED)


@pytest.mark.parametrize("provider_type", [*SEEDED, "never-heard-of"])
def test_a_chat_goes_to_the_one_path_with_the_key_as_a_bearer(provider_type: str) -> None:
    auth = auth_of(provider_type)
    assert auth.chat_path == "/chat/completions"
    assert auth.chat_header(Credential("k")) == ("authorization", "Bearer k")


@pytest.mark.parametrize("provider_type", [*SEEDED, "never-heard-of"])
def test_only_what_runs_here_may_go_without_a_key(provider_type: str) -> None:
    assert auth_of(provider_type).is_optional == (provider_type in {"local", "vllm"})


@pytest.mark.parametrize("provider_type", [*SEEDED, "never-heard-of"])
def test_only_openai_has_the_new_name_for_the_bound_of_the_output(provider_type: str) -> None:
    expected = "max_completion_tokens" if provider_type == "openai" else "max_tokens"
    assert auth_of(provider_type).max_tokens_name == expected


def test_the_table_never_shows_a_key() -> None:
    assert "sk-canary" not in repr((auth_of("openai"), Credential("sk-canary-0123456789")))
