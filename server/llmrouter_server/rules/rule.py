"""Routing rules, as their list has them, and what may be changed about them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmrouter_server.catalog.etag import etag_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import PowerLevel

DEFAULT_PRIORITY = 50
MOST_ACTIVE = 200
"""Active rules at the same time: every one may be tried for each request."""


@dataclass(frozen=True, slots=True)
class RuleWeights:
    """How much each criterion counts: each 0 to 1, together 1 (within 0.001)."""

    cost: float
    latency: float
    quality: float


@dataclass(frozen=True, slots=True)
class Definition:
    """Everything about a rule that can be changed. It has at least one effect, and one of strategy and weights."""

    rule_name: str
    priority: int = DEFAULT_PRIORITY
    is_active: bool = True
    condition: str = ""
    power_level: PowerLevel | None = None
    strategy: str | None = None
    weights: RuleWeights | None = None
    provider_ids: tuple[UUID, ...] = ()

    @property
    def has_effect(self) -> bool:
        """Whether it changes anything about the requests that meet its condition."""
        return bool(self.power_level or self.strategy or self.weights or self.provider_ids)

    def facts(self) -> dict[str, object]:
        """Return everything as JSON."""
        return {
            "rule_name": self.rule_name,
            "priority": self.priority,
            "is_active": self.is_active,
            "strategy": self.strategy,
            **self.config(),
        }

    def config(self) -> dict[str, object]:
        """Return as JSON what has no column of its own."""
        return {
            "condition": self.condition,
            "power_level": self.power_level.name if self.power_level else None,
            "weights": dataclasses.asdict(self.weights) if self.weights else None,
            "provider_ids": [str(each) for each in self.provider_ids],
        }


@dataclass(frozen=True, slots=True)
class DefinitionChanges:
    """New values of a rule's fields, by the names of Definition's."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, definition: Definition) -> Definition:
        """Return the definition with these values."""
        return dataclasses.replace(definition, **self.values)


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule."""

    id: UUID
    definition: Definition
    revision: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return etag_of(self.id, self.revision)
