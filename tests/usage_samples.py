"""Reports of usage, and a recorder that nobody listens to, for the tests."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import uuid_utils.compat as uuid_utils

from llmrouter_server.usage.record import Report
from llmrouter_server.usage.recorder import UsageRecorder
from llmrouter_server.usage.store import UsageStore

if TYPE_CHECKING:
    from collections.abc import Collection

    from llmrouter_server.runtime.database import Database

NOW = datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC)


def report(user: uuid.UUID, model: uuid.UUID, **changes: Any) -> Report:
    values = {
        "usage_id": uuid_utils.uuid7(),
        "user_id": user,
        "request_id": str(uuid.uuid4()),
        "model_id": model,
        "input_tokens": 1000,
        "output_tokens": 100,
        "latency_ms": 200,
        "succeeded": True,
        "failure": None,
        "error_message": None,
        "decision_id": None,
        "payer": None,
        "occurred_at": NOW,
    }
    return Report(**(values | changes))


def attempt(user: uuid.UUID, model: uuid.UUID, decision: uuid.UUID | None, dollars: str, **changes: Any) -> Report:
    """Make a report of an attempt that cost so much, with a model at 2.50 US dollars a million tokens (gpt-4o)."""
    tokens = int(Decimal(dollars) * 400_000)
    return report(user, model, decision_id=decision, input_tokens=tokens, output_tokens=0, **changes)


class NoKeys:
    """Keeps nothing of which keys work."""

    async def mark_refused(self, pairs: Collection[tuple[uuid.UUID, uuid.UUID]], at: datetime) -> None:
        pass

    async def mark_working(self, pairs: Collection[tuple[uuid.UUID, uuid.UUID]]) -> None:
        pass


def usage_store(database: Database) -> UsageStore:
    return UsageStore(database)


def quiet_recorder(store: UsageStore) -> UsageRecorder:
    return UsageRecorder(store, observe=lambda _: None, keys=NoKeys())


async def model_ids(database: Database) -> dict[str, uuid.UUID]:
    """Return the ids of the catalogue's models by their names."""
    async with database.connection() as connection:
        return dict(map(tuple, await connection.fetch("select model_name, id from llm_models")))
