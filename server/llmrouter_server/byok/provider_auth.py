"""How each kind of provider takes a key, and where it tells whether it takes it: the one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter_server.byok.cipher import Credential


@dataclass(frozen=True, slots=True)
class ProviderAuth:
    """How one kind of provider takes a key."""

    header: str = "authorization"
    before_key: str = "Bearer "
    other_headers: tuple[tuple[str, str], ...] = ()
    check_path: str = "/models"
    """Below the provider's endpoint; a GET of it needs a key and costs nothing."""

    def headers(self, credential: Credential) -> tuple[tuple[str, str], ...]:
        """Return the headers that carry the key. They are for its provider alone."""
        return ((self.header, self.before_key + credential.reveal()), *self.other_headers)


BY_PROVIDER_TYPE: Mapping[str, ProviderAuth] = {
    "anthropic": ProviderAuth("x-api-key", "", (("anthropic-version", "2023-06-01"),)),
    "openrouter": ProviderAuth(check_path="/key"),  # its list of models is open to everyone, whatever the key
}
"""Kinds that differ from OpenAI's way. https://docs.anthropic.com/en/api, https://openrouter.ai/docs/api-reference"""


def auth_of(provider_type: str) -> ProviderAuth:
    """Return how a kind of provider takes a key: as OpenAI does, unless the table says otherwise."""
    return BY_PROVIDER_TYPE.get(provider_type, ProviderAuth())
