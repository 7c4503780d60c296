"""GET /v1/models: what a caller can use now, in OpenAI's shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.gateway.chat import AUTO
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.routing.router import Router

CREATED = 0
"""OpenAI's clients want a moment; the catalogue does not say when a model was made."""
ENTRIES_AT_ONCE = 50
"""How many models are written before others have their turn."""
OWN_NAMES = AUTO, *(level.name.lower() for level in PowerLevel)


class UsableModels:
    """Lists models."""

    def __init__(self, router: Router, *, is_usable: Callable[[UUID, str], bool]) -> None:
        self._router, self._is_usable = router, is_usable
        self._written: dict[UUID, tuple[CatalogModel, str]] = {}
        """Entries by the id of the model, each good for that very object: what changes is another one."""

    async def answer(self, user_id: UUID, name: str) -> bytes:
        """Return the whole list, or (for a name) one entry; RESOURCE_NOT_FOUND when the caller cannot use it."""
        models = [
            model
            for model in await self._router.usable_models(user_id)
            if name in ("", model.model_name) and self._is_usable(model.provider_id, model.api_endpoint)
        ]
        entries = {each: json.dumps(_entry(each, "llmrouter")) for each in OWN_NAMES}
        async for model in in_turns(sorted(models, key=_by_name), ENTRIES_AT_ONCE):
            entries[model.model_name] = self._entry_of(model)
        if not name:
            return f'{{"object": "list", "data": [{", ".join(entries.values())}]}}'.encode()
        if name not in entries:
            raise errors.not_found("model")
        return entries[name].encode()

    def _entry_of(self, model: CatalogModel) -> str:
        written = self._written.get(model.model_id)
        if written is None or written[0] is not model:
            written = self._written[model.model_id] = model, json.dumps(_of(model))
        return written[1]


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
