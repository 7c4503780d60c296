"""Snapshots as the database keeps them: JSON, written by llm_catalog_models() and llm_catalog_rules()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from llmrouter_server.catalog.snapshot import CatalogModel, CatalogRule, PowerLevel, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def read_snapshot(number: int, models: Iterable[Mapping[str, Any]], rules: Iterable[Mapping[str, Any]]) -> Snapshot:
    """Read the snapshot of this number.

    Its prices and ratings have few enough digits to be the same floats whether they come through JSON or a Decimal.
    """
    return Snapshot(number, tuple(map(_model, models)), tuple(map(_rule, rules)))


def _model(stored: Mapping[str, Any]) -> CatalogModel:
    return CatalogModel(
        model_id=UUID(stored["model_id"]),
        provider_id=UUID(stored["provider_id"]),
        model_name=stored["model_name"],
        display_name=stored["display_name"],
        provider_name=stored["provider_name"],
        api_endpoint=stored["api_endpoint"],
        power_level=PowerLevel[stored["power_level"]],
        input_cost_per_1m=float(stored["input_cost_per_1m"]),
        output_cost_per_1m=float(stored["output_cost_per_1m"]),
        avg_latency_ms=stored["avg_latency_ms"],
        quality_rating=float(stored["quality_rating"]),
        max_context_tokens=stored["max_context_tokens"],
        capabilities=frozenset(stored["capabilities"]),
        priority=stored["priority"],
        requires_byok=stored["requires_byok"],
        model_enabled=stored["model_enabled"],
        provider_enabled=stored["provider_enabled"],
        provider_type=stored.get("provider_type", ""),
    )


def _rule(stored: Mapping[str, Any]) -> CatalogRule:
    config = stored["config"]
    level, weights = config.get("power_level"), config.get("weights")
    return CatalogRule(
        rule_id=UUID(stored["rule_id"]),
        rule_name=stored["rule_name"],
        condition=config.get("condition", ""),
        power_level=PowerLevel[level] if level else None,
        strategy=stored["strategy"],
        weights=(weights["cost"], weights["latency"], weights["quality"]) if weights else None,
        provider_ids=frozenset(map(UUID, config.get("provider_ids", ()))),
    )
