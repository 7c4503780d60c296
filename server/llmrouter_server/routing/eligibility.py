"""Which models of the catalogue are candidates for a request, and why the others are not."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel, PowerLevel


class Exclusion(enum.Enum):
    """Why a model is no candidate: the first of these that holds, in this order."""

    MODEL_DISABLED = "MODEL_DISABLED"
    PROVIDER_DISABLED = "PROVIDER_DISABLED"
    POWER_LEVEL = "POWER_LEVEL"
    KEY_REQUIRED = "KEY_REQUIRED"
    CAPABILITY_MISSING = "CAPABILITY_MISSING"
    CONTEXT_TOO_SMALL = "CONTEXT_TOO_SMALL"
    PROVIDER_UNHEALTHY = "PROVIDER_UNHEALTHY"


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs, and on whose behalf."""

    power_level: PowerLevel
    keyed_providers: AbstractSet[UUID] = frozenset()
    """Providers for which the caller has an active key of their own."""
    capabilities: AbstractSet[str] = frozenset()
    context_tokens: int = 0
    unhealthy_providers: AbstractSet[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Every model of the catalogue is in exactly one of the two."""

    candidates: tuple[CatalogModel, ...]
    excluded: tuple[tuple[CatalogModel, Exclusion], ...]
    degraded: bool
    """Only unhealthy providers were left, so health was not held against them."""


def select_eligible(models: Iterable[CatalogModel], need: Need) -> Eligibility:
    """Divide the models into candidates and excluded ones."""
    healthy: list[CatalogModel] = []
    unhealthy: list[CatalogModel] = []
    excluded: list[tuple[CatalogModel, Exclusion]] = []
    for model in models:
        reason = _exclusion(model, need)
        if reason is not None:
            excluded.append((model, reason))
        elif model.provider_id in need.unhealthy_providers:
            unhealthy.append(model)
        else:
            healthy.append(model)
    if not healthy:
        return Eligibility(tuple(unhealthy), tuple(excluded), degraded=bool(unhealthy))
    excluded.extend((model, Exclusion.PROVIDER_UNHEALTHY) for model in unhealthy)
    return Eligibility(tuple(healthy), tuple(excluded), degraded=False)


def _exclusion(model: CatalogModel, need: Need) -> Exclusion | None:
    tests = (
        (not model.model_enabled, Exclusion.MODEL_DISABLED),
        (not model.provider_enabled, Exclusion.PROVIDER_DISABLED),
        (model.power_level is not need.power_level, Exclusion.POWER_LEVEL),
        (model.requires_byok and model.provider_id not in need.keyed_providers, Exclusion.KEY_REQUIRED),
        (not need.capabilities <= model.capabilities, Exclusion.CAPABILITY_MISSING),
        (model.max_context_tokens < need.context_tokens, Exclusion.CONTEXT_TOO_SMALL),
    )
    return next((reason for fails, reason in tests if fails), None)
