"""The 21 models of the initial catalogue as routing sees them, typed from the request, not from the migration.

Context sizes and capabilities are no part of the request's figures; here every model has the same ample ones.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from llmrouter_server.catalog.snapshot import CAPABILITIES, CatalogModel, PowerLevel

if TYPE_CHECKING:
    from collections.abc import Iterable

# name; priority; whether it requires a key of the user's own
PROVIDERS = {
    "Local vLLM": (100, False),
    "Groq": (95, True),
    "OpenRouter": (90, False),
    "OpenAI": (80, True),
    "Anthropic": (80, True),
    "Together AI": (70, True),
    "HuggingFace": (60, True),
}

# provider; display name; model name; input and output US dollars per million tokens; latency in ms; quality rating
ECO = [
    ("Groq", "Mixtral 8x7B", "mixtral-8x7b-32768", 0.00, 0.00, 250, 8.0),
    ("Groq", "Llama 3.1 70B", "llama-3.1-70b-versatile", 0.00, 0.00, 300, 8.5),
    ("Local vLLM", "Qwen 2.5 32B", "Qwen/Qwen2.5-32B-Instruct", 0.00, 0.00, 200, 7.5),
    ("OpenRouter", "Llama 3.1 405B", "meta-llama/llama-3.1-405b", 0.10, 0.10, 400, 9.0),
]
BALANCED = [
    ("OpenAI", "GPT-4o Mini", "gpt-4o-mini", 0.15, 0.60, 400, 8.5),
    ("Anthropic", "Claude 3.5 Haiku", "claude-3-5-haiku-20241022", 0.25, 1.25, 350, 8.7),
    ("OpenRouter", "Qwen 2.5 72B Instruct", "qwen/qwen-2.5-72b-instruct", 0.35, 0.40, 350, 8.8),
    ("OpenRouter", "Llama 3.3 70B Instruct", "meta-llama/llama-3.3-70b-instruct", 0.50, 0.50, 300, 9.0),
    ("OpenAI", "GPT-4o", "gpt-4o", 2.50, 10.00, 500, 9.3),
    ("OpenRouter", "DeepSeek V3", "deepseek/deepseek-chat", 0.27, 1.10, 400, 9.0),
    ("Together AI", "Llama 3.1 405B", "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo", 3.00, 3.00, 600, 9.2),
    ("HuggingFace", "Qwen 2.5 72B", "Qwen/Qwen2.5-72B-Instruct", 0.50, 0.50, 450, 8.5),
]
PRECISION = [
    ("Anthropic", "Claude 3.5 Sonnet", "claude-3-5-sonnet-20241022", 3.00, 15.00, 600, 9.8),
    ("OpenAI", "O1 Preview", "o1-preview", 15.00, 60.00, 5000, 9.9),
    ("OpenAI", "O1 Mini", "o1-mini", 3.00, 12.00, 3000, 9.5),
    ("OpenRouter", "Gemini 2.0 Flash Thinking", "google/gemini-2.0-flash-thinking-exp", 0.00, 0.00, 1500, 9.4),
    ("OpenRouter", "DeepSeek R1", "deepseek/deepseek-r1", 0.55, 2.19, 3500, 9.7),
    ("Anthropic", "Claude 3 Opus", "claude-3-opus-20240229", 15.00, 75.00, 800, 9.9),
    ("OpenRouter", "Llama 3.1 405B Instruct", "meta-llama/llama-3.1-405b-instruct", 3.50, 4.00, 700, 9.5),
    ("OpenRouter", "Gemini 1.5 Pro", "google/gemini-pro-1.5", 1.25, 5.00, 600, 9.2),
    ("OpenAI", "GPT-4 Turbo", "gpt-4-turbo", 10.00, 30.00, 800, 9.4),
]


def provider_id(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_DNS, name)


def _models(
    level: PowerLevel, rows: Iterable[tuple[str, str, str, float, float, int, float]]
) -> tuple[CatalogModel, ...]:
    return tuple(
        CatalogModel(
            model_id=uuid.uuid5(provider_id(provider), model_name),
            provider_id=provider_id(provider),
            model_name=model_name,
            display_name=display_name,
            provider_name=provider,
            api_endpoint="https://api.example.com/v1",
            power_level=level,
            input_cost_per_1m=input_cost,
            output_cost_per_1m=output_cost,
            avg_latency_ms=latency,
            quality_rating=rating,
            max_context_tokens=32_768,
            capabilities=frozenset(CAPABILITIES),
            priority=PROVIDERS[provider][0],
            requires_byok=PROVIDERS[provider][1],
            model_enabled=True,
            provider_enabled=True,
        )
        for provider, display_name, model_name, input_cost, output_cost, latency, rating in rows
    )


MODELS = (
    _models(PowerLevel.ECO, ECO) + _models(PowerLevel.BALANCED, BALANCED) + _models(PowerLevel.PRECISION, PRECISION)
)
NO_KEYS: frozenset[uuid.UUID] = frozenset()
ALL_KEYS = frozenset(provider_id(name) for name, (_, requires_byok) in PROVIDERS.items() if requires_byok)
