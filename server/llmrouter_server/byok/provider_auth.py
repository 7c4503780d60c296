"""How each kind of provider's API is called: where, with which headers, under which names. The one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter_server.byok.cipher import Credential


@dataclass(frozen=True, slots=True)
class ProviderAuth:
    """How one kind of provider takes a key and a chat request."""

    header: str = "authorization"
    before_key: str = "Bearer "
    other_headers: tuple[tuple[str, str], ...] = ()
    check_path: str = "/models"
    """Below the provider's endpoint; a GET of it needs a key and costs nothing."""
    chat_path: str = "/chat/completions"
    """Below the provider's endpoint; takes OpenAI's chat request by POST."""
    is_optional: bool = False
    """It answers without a key too, so a chat may be sent without one."""
    max_tokens_name: str = "max_tokens"
    """The member of a chat request that bounds the output."""

    def headers(self, credential: Credential) -> tuple[tuple[str, str], ...]:
        """Return the headers that carry the key to `check_path`. They are for its provider alone."""
        return ((self.header, self.before_key + credential.reveal()), *self.other_headers)

    def chat_header(self, credential: Credential) -> tuple[str, str]:
        """Return the header that carries the key to `chat_path`, Anthropic's too. It is for its provider alone."""
        return ("authorization", "Bearer " + credential.reveal())


BY_PROVIDER_TYPE: Mapping[str, ProviderAuth] = {
    "local": ProviderAuth(is_optional=True),
    "vllm": ProviderAuth(is_optional=True),
    "groq": ProviderAuth(),
    "openrouter": ProviderAuth(check_path="/key"),  # its list of models is open to everyone, whatever the key
    "openai": ProviderAuth(max_tokens_name="max_completion_tokens"),  # o-series models refuse max_tokens
    "anthropic": ProviderAuth("x-api-key", "", (("anthropic-version", "2023-06-01"),)),
    "together": ProviderAuth(),
    "huggingface": ProviderAuth(),
}
"""By the providers' own documentation:

- vllm: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html (a key only when it was started with one)
- groq: https://console.groq.com/docs/openai
- openrouter: https://openrouter.ai/docs/api-reference/overview (HTTP-Referer and X-Title, which name an app in its
  rankings, are optional), https://openrouter.ai/docs/api-reference/limits for its check of a key
- openai: https://platform.openai.com/docs/api-reference/chat/create
- anthropic: https://platform.claude.com/docs/en/api/openai-sdk for chats, which come from OpenAI's SDK and so with a
  bearer key, and take `max_tokens`; https://platform.claude.com/docs/en/api/overview for its own API
- together: https://docs.together.ai/docs/inference/openai-compatibility (it names the host api.together.ai now; its
  OpenAPI description has the seed's api.together.xyz)
- huggingface: https://huggingface.co/docs/inference-providers/tasks/chat-completion
"""

_AS_OPENAI_FIRST_WAS = ProviderAuth()


def auth_of(provider_type: str) -> ProviderAuth:
    """Return how a kind of provider is called: as OpenAI first was, unless the table says otherwise."""
    return BY_PROVIDER_TYPE.get(provider_type, _AS_OPENAI_FIRST_WAS)
