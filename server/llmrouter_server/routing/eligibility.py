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
    OVER_BUDGET = "OVER_BUDGET"
    KEY_REQUIRED = "KEY_REQUIRED"
    KEY_FAILING = "KEY_FAILING"
    CAPABILITY_MISSING = "CAPABILITY_MISSING"
    CONTEXT_TOO_SMALL = "CONTEXT_TOO_SMALL"
    PROVIDER_UNHEALTHY = "PROVIDER_UNHEALTHY"


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs, and on whose behalf."""

    power_level: PowerLevel
    keyed_providers: AbstractSet[UUID] = frozenset()
    """Providers for which the caller has an active key of their own."""
    failing_keys: AbstractSet[UUID] = frozenset()
    """Those of them that refused the caller's key a short while ago."""
    free_only: bool = False
    """The month's budget is used up: only models that cost nothing."""
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
    """Return the first reason, in the order of Exclusion. Branches, because this runs for every model every time."""
    if not model.model_enabled:
        return Exclusion.MODEL_DISABLED
    if not model.provider_enabled:
        return Exclusion.PROVIDER_DISABLED
    if model.power_level is not need.power_level:
        return Exclusion.POWER_LEVEL
    if need.free_only and (model.input_cost_per_1m or model.output_cost_per_1m):
        return Exclusion.OVER_BUDGET
    return _unusable(model, need)


def _unusable(model: CatalogModel, need: Need) -> Exclusion | None:
    if model.requires_byok and model.provider_id not in need.keyed_providers:
        return Exclusion.KEY_REQUIRED
    if model.requires_byok and model.provider_id in need.failing_keys:
        return Exclusion.KEY_FAILING
    if not need.capabilities <= model.capabilities:
        return Exclusion.CAPABILITY_MISSING
    if model.max_context_tokens < need.context_tokens:
        return Exclusion.CONTEXT_TOO_SMALL
    return None
