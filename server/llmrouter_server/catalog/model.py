"""Models, as the catalogue lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import PowerLevel


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
    created_at: datetime
    updated_at: datetime
