"""Models, as the catalogue lists them, and what may be changed about them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrouter_server.catalog.etag import etag_of

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import PowerLevel

MAX_NAME_CHARS = 200
MAX_PRICE_USD = 999_999
PRICE_PLACES = 4
MAX_LATENCY_MS = 3_600_000
MAX_QUALITY = 10
QUALITY_PLACES = 2
MAX_CONTEXT_TOKENS = 1_000_000_000
STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class Model:
    """One provider's offer of one language model. Prices are US dollars per million tokens."""

    id: UUID
    provider_id: UUID
    provider_name: str
    model_name: str
    display_name: str
    power_level: PowerLevel
    input_cost_per_1m: Decimal
    output_cost_per_1m: Decimal
    avg_latency_ms: int
    quality_score: Decimal
    """0 to 10."""
    supports_streaming: bool
    max_context_tokens: int
    capabilities: tuple[str, ...]
    is_enabled: bool
    requires_byok: bool
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return etag_of(self.id, self.revision)

    def facts(self) -> dict[str, object]:
        """Return everything that can be changed, as JSON."""
        return {
            "model_name": self.model_name,
            "display_name": self.display_name,
            "power_level": self.power_level.name,
            "input_cost_per_1m": float(self.input_cost_per_1m),
            "output_cost_per_1m": float(self.output_cost_per_1m),
            "avg_latency_ms": self.avg_latency_ms,
            "quality_score": float(self.quality_score),
            "supports_streaming": self.supports_streaming,
            "max_context_tokens": self.max_context_tokens,
            "capabilities": list(self.capabilities),
            "is_enabled": self.is_enabled,
        }


@dataclass(frozen=True, slots=True)
class ModelChanges:
    """New values of a model's fields; None leaves a field as it is."""

    model_name: str | None = None
    display_name: str | None = None
    power_level: PowerLevel | None = None
    input_cost_per_1m: Decimal | None = None
    output_cost_per_1m: Decimal | None = None
    avg_latency_ms: int | None = None
    quality_score: Decimal | None = None
    supports_streaming: bool | None = None
    max_context_tokens: int | None = None
    capabilities: tuple[str, ...] | None = None
    is_enabled: bool | None = None

    def applied_to(self, model: Model) -> Model:
        """Return the model with these values."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = dataclasses.replace(model, **{name: value for name, value in given.items() if value is not None})
        capabilities = with_streaming(changed.capabilities, supports_streaming=changed.supports_streaming)
        return dataclasses.replace(changed, capabilities=capabilities)


def with_streaming(capabilities: tuple[str, ...], *, supports_streaming: bool) -> tuple[str, ...]:
    """Return the capabilities with `streaming` exactly when the model supports it."""
    rest = tuple(word for word in capabilities if word != STREAMING)
    return (*rest, STREAMING) if supports_streaming else rest
