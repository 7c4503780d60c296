"""Providers on the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmrouter.v2 import provider_pb2
from llmrouter_server.catalog.provider import (
    MAX_CONFIG_BYTES,
    MAX_PRIORITY,
    PROVIDER_TYPE,
    ProviderChanges,
    endpoint_problem,
)
from llmrouter_server.runtime.messages import struct, timestamp

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from llmrouter.v2.provider_service_pb2 import CreateProviderRequest, UpdateProviderRequest
    from llmrouter_server.catalog.provider import Provider
    from llmrouter_server.runtime.fields import Fields

REQUIRED = frozenset({"name", "provider_type", "api_endpoint"})
"""What a new provider must have."""


def read_provider(
    fields: Fields,
    request: CreateProviderRequest | UpdateProviderRequest,
    *,
    required: AbstractSet[str] = frozenset(),
    allow_private: bool,
) -> ProviderChanges:
    """Read the fields that are given or required."""
    given = {field.name for field, _ in request.ListFields()} | required
    if "provider_type" in given and not re.fullmatch(PROVIDER_TYPE, request.provider_type):
        fields.wrong("provider_type", "must be 1 to 50 lower-case letters, digits, - and _, for instance openai")
    return ProviderChanges(
        name=fields.text("name", request.name, longest=100) if "name" in given else None,
        provider_type=request.provider_type if "provider_type" in given else None,
        api_endpoint=_endpoint(fields, request.api_endpoint, allow_private) if "api_endpoint" in given else None,
        requires_byok=request.requires_byok if "requires_byok" in given else None,
        is_enabled=request.is_enabled if "is_enabled" in given else None,
        priority=fields.number("priority", request.priority, low=0, high=MAX_PRIORITY) if "priority" in given else None,
        config=fields.json_object("config", request.config, most_bytes=MAX_CONFIG_BYTES) if "config" in given else None,
    )


def _endpoint(fields: Fields, value: str, allow_private: bool) -> str:
    endpoint = fields.text("api_endpoint", value, longest=2048)
    problem = endpoint_problem(endpoint, allow_private=allow_private) if endpoint else None
    if problem:
        fields.wrong("api_endpoint", problem)
    return endpoint


def provider_message(provider: Provider) -> provider_pb2.Provider:
    """Write a provider."""
    return provider_pb2.Provider(
        provider_id=str(provider.id),
        name=provider.name,
        provider_type=provider.provider_type,
        api_endpoint=provider.api_endpoint,
        requires_byok=provider.requires_byok,
        is_enabled=provider.is_enabled,
        priority=provider.priority,
        config=struct(provider.config),
        model_count=provider.model_count,
        created_at=timestamp(provider.created_at),
        updated_at=timestamp(provider.updated_at),
        etag=provider.etag,
        has_platform_key=provider.has_platform_key,
    )
