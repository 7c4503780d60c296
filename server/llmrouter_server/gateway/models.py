"""GET /v1/models: what a caller can use now, in OpenAI's shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.gateway.chat import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.routing.router import Router

CREATED = 0
"""OpenAI's clients want a moment; the catalogue does not say when a model was made."""


class UsableModels:
    """Lists models."""

    def __init__(self, router: Router, *, is_usable: Callable[[UUID, str], bool]) -> None:
        self._router, self._is_usable = router, is_usable

    async def answer(self, user_id: UUID, name: str) -> bytes:
        """Return the whole list, or (for a name) one entry; RESOURCE_NOT_FOUND when the caller cannot use it."""
        models = [
            model
            for model in await self._router.usable_models(user_id)
            if self._is_usable(model.provider_id, model.api_endpoint)
        ]
        entries = {AUTO: _entry(AUTO, "llmrouter")}
        entries |= {level.name.lower(): _entry(level.name.lower(), "llmrouter") for level in PowerLevel}
        entries |= {model.model_name: _of(model) for model in sorted(models, key=_by_name)}
        if not name:
            return json.dumps({"object": "list", "data": list(entries.values())}).encode()
        if name not in entries:
            raise errors.not_found("model")
        return json.dumps(entries[name]).encode()


def _by_name(model: CatalogModel) -> tuple[str, str]:
    return model.model_name, model.provider_name


def _of(model: CatalogModel) -> dict[str, object]:
    return _entry(model.model_name, model.provider_name) | {
        "display_name": model.display_name,
        "power_level": model.power_level.name,
        "context_window": model.max_context_tokens,
        "capabilities": sorted(model.capabilities),
    }


def _entry(name: str, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}
