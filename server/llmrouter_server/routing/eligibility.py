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
    MODEL_NAME = "MODEL_NAME"
    POWER_LEVEL = "POWER_LEVEL"
    RULE_PROVIDER = "RULE_PROVIDER"
    OVER_BUDGET = "OVER_BUDGET"
    KEY_REQUIRED = "KEY_REQUIRED"
    KEY_FAILING = "KEY_FAILING"
    NO_CREDENTIAL = "NO_CREDENTIAL"
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
    model_name: str | None = None
    """The model that was asked for by its name, if one was: the power level is not held against it."""
    allow_fallbacks: bool = False
    """Whether models of other names, of the power level, may stand in for it."""
    without_credential: AbstractSet[UUID] = frozenset()
    """Providers without BYOK that could not be paid: there is no key, of anybody, that could be used."""
    rule_providers: AbstractSet[UUID] | None = None
    """The only providers that the routing rule lets through; None: all of them."""


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


def _exclusion(model: CatalogModel, need: Need) -> Exclusion | None:  # noqa: PLR0911 - one for each reason
    """Return the first reason, in the order of Exclusion. Branches, because this runs for every model every time."""
    if not (model.model_enabled and model.provider_enabled):
        return Exclusion.PROVIDER_DISABLED if model.model_enabled else Exclusion.MODEL_DISABLED
    if need.model_name is None:
        if model.power_level is not need.power_level:
            return Exclusion.POWER_LEVEL
    elif model.model_name != need.model_name:
        if not need.allow_fallbacks:
            return Exclusion.MODEL_NAME
        if model.power_level is not need.power_level:
            return Exclusion.POWER_LEVEL
    if need.rule_providers is not None and model.provider_id not in need.rule_providers:
        return Exclusion.RULE_PROVIDER
    if need.free_only and (model.input_cost_per_1m or model.output_cost_per_1m):
        return Exclusion.OVER_BUDGET
    return _unusable(model, need)


def _unusable(model: CatalogModel, need: Need) -> Exclusion | None:
    if model.requires_byok and model.provider_id not in need.keyed_providers:
        return Exclusion.KEY_REQUIRED
    if model.requires_byok and model.provider_id in need.failing_keys:
        return Exclusion.KEY_FAILING
    if need.without_credential and model.provider_id in need.without_credential:
        return Exclusion.NO_CREDENTIAL
    if not need.capabilities <= model.capabilities:
        return Exclusion.CAPABILITY_MISSING
    if model.max_context_tokens < need.context_tokens:
        return Exclusion.CONTEXT_TOO_SMALL
    return None
