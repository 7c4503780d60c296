"""Models on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2 import model_pb2, power_level_pb2
from llmrouter_server.catalog.model import (
    MAX_CONTEXT_TOKENS,
    MAX_LATENCY_MS,
    MAX_NAME_CHARS,
    MAX_PRICE_USD,
    MAX_QUALITY,
    PRICE_PLACES,
    QUALITY_PLACES,
    ModelChanges,
)
from llmrouter_server.catalog.power_level import power_level_message, read_power_level
from llmrouter_server.catalog.snapshot import CAPABILITIES
from llmrouter_server.runtime.messages import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet
    from decimal import Decimal

    from llmrouter.v2.model_service_pb2 import CreateModelRequest, UpdateModelRequest
    from llmrouter_server.catalog.model import Model
    from llmrouter_server.catalog.snapshot import PowerLevel
    from llmrouter_server.runtime.fields import Fields

REQUIRED = frozenset({"model_name", "power_level"})
"""What a new model must have."""


def read_model(
    fields: Fields, request: CreateModelRequest | UpdateModelRequest, *, required: AbstractSet[str] = frozenset()
) -> ModelChanges:
    """Read the fields that are given or required."""
    given = {field.name for field, _ in request.ListFields()} | required
    return ModelChanges(
        model_name=_name(fields, "model_name", request.model_name) if "model_name" in given else None,
        display_name=_name(fields, "display_name", request.display_name) if "display_name" in given else None,
        power_level=_level(fields, request.power_level) if "power_level" in given else None,
        input_cost_per_1m=_price(fields, "input_cost_per_1m", request.input_cost_per_1m)
        if "input_cost_per_1m" in given
        else None,
        output_cost_per_1m=_price(fields, "output_cost_per_1m", request.output_cost_per_1m)
        if "output_cost_per_1m" in given
        else None,
        avg_latency_ms=fields.number("avg_latency_ms", request.avg_latency_ms, low=0, high=MAX_LATENCY_MS)
        if "avg_latency_ms" in given
        else None,
        quality_score=fields.decimal("quality_score", request.quality_score, most=MAX_QUALITY, places=QUALITY_PLACES)
        if "quality_score" in given
        else None,
        supports_streaming=request.supports_streaming if "supports_streaming" in given else None,
        max_context_tokens=fields.number(
            "max_context_tokens", request.max_context_tokens, low=1, high=MAX_CONTEXT_TOKENS
        )
        if "max_context_tokens" in given
        else None,
        capabilities=_capabilities(fields, request.capabilities) if "capabilities" in given else None,
        is_enabled=request.is_enabled if "is_enabled" in given else None,
    )


def _name(fields: Fields, path: str, value: str) -> str:
    return fields.text(path, value, longest=MAX_NAME_CHARS)


def _level(fields: Fields, value: int) -> PowerLevel | None:
    if value == power_level_pb2.POWER_LEVEL_UNSPECIFIED:
        fields.wrong("power_level", "is required")
    return read_power_level(fields, "power_level", value)


def _price(fields: Fields, path: str, value: float) -> Decimal:
    return fields.decimal(path, value, most=MAX_PRICE_USD, places=PRICE_PLACES)


def _capabilities(fields: Fields, words: Sequence[str]) -> tuple[str, ...]:
    """Read a set of capabilities; the order they are kept in is always the same."""
    if len(set(words)) != len(words) or not set(words) <= set(CAPABILITIES):
        fields.wrong("capabilities", f"must be any of {', '.join(CAPABILITIES)}, each once")
    return tuple(word for word in CAPABILITIES if word in words)


def model_message(model: Model) -> model_pb2.Model:
    """Write a model."""
    return model_pb2.Model(
        model_id=str(model.id),
        provider_id=str(model.provider_id),
        provider_name=model.provider_name,
        model_name=model.model_name,
        display_name=model.display_name,
        power_level=power_level_message(model.power_level),
        input_cost_per_1m=float(model.input_cost_per_1m),
        output_cost_per_1m=float(model.output_cost_per_1m),
        avg_latency_ms=model.avg_latency_ms,
        quality_score=float(model.quality_score),
        supports_streaming=model.supports_streaming,
        max_context_tokens=model.max_context_tokens,
        capabilities=model.capabilities,
        is_enabled=model.is_enabled,
        requires_byok=model.requires_byok,
        created_at=timestamp(model.created_at),
        updated_at=timestamp(model.updated_at),
        etag=model.etag,
    )
