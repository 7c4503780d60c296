"""With whose key each provider would be paid: from what is in memory, without a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter_server.byok.cipher import PLATFORM_USER
from llmrouter_server.byok.provider_auth import auth_of
from llmrouter_server.byok.store import SealedKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from llmrouter_server.byok.live_keys import KeptKey
    from llmrouter_server.catalog.snapshot import CatalogModel


def find_unpayable(
    models: Iterable[CatalogModel],
    own: Mapping[UUID, KeptKey],
    platform: Mapping[UUID, KeptKey],
    failing: AbstractSet[UUID],
) -> frozenset[UUID]:
    """Return the providers without BYOK for which there is no key to use, and that answer nobody without one.

    The user's own key goes before the platform's even while it is failing: who pays does not change silently.
    """
    return frozenset(
        model.provider_id
        for model in models
        if not model.requires_byok
        and (
            model.provider_id in failing
            or (
                model.provider_id not in own
                and model.provider_id not in platform
                and not auth_of(model.provider_type).is_optional
            )
        )
    )


def find_keys(
    models: Iterable[CatalogModel], user_id: UUID, own: Mapping[UUID, KeptKey], platform: Mapping[UUID, KeptKey]
) -> Mapping[UUID, SealedKey]:
    """Return the key to use at each of the models' providers: the user's own, else the platform's where it may pay."""
    keys: dict[UUID, SealedKey] = {}
    for model in models:
        provider_id = model.provider_id
        if provider_id in keys:
            continue
        kept = own.get(provider_id)
        if kept is None and not model.requires_byok:
            kept = platform.get(provider_id)
        if kept is not None:
            keys[provider_id] = SealedKey(
                key_id=kept.key_id,
                user_id=PLATFORM_USER if kept.key_id is None else user_id,
                provider_id=provider_id,
                provider_type=model.provider_type,
                api_endpoint=model.api_endpoint,
                is_enabled=model.provider_enabled,
                ciphertext=kept.ciphertext,
            )
    return keys
