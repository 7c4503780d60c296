"""What recording tells whoever holds money for requests under way. The budget implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal
    from uuid import UUID

    from llmrouter_server.usage.record import UsageRecord
    from llmrouter_server.usage.rollup import MonthKey


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the records of one user with the same decision come to."""

    decision_id: UUID
    user_id: UUID
    cost_usd: Decimal
    is_final: bool
    """Whether one of them succeeded; after a failed attempt another one may follow."""


class Holds(Protocol):
    """Money held for decisions."""

    async def settle(self, connection: Any, settlements: Sequence[Settlement]) -> Mapping[MonthKey, Decimal]:  # noqa: ANN401 - asyncpg has no types
        """Close the holds of these decisions, and return by how much less each user and month now holds.

        Runs inside the transaction of recording, which lowers `held_usd` in the ledger by that: it writes the spend
        there too, and so locks each user's month once, in one order.
        """


def settlements(records: Iterable[UsageRecord]) -> list[Settlement]:
    """Bring together the records of each decision, in the order of their ids."""
    found: dict[tuple[UUID, UUID], Settlement] = {}
    for record in records:
        report = record.report
        if report.decision_id is None:
            continue
        key = report.decision_id, report.user_id
        before = found.get(key)
        found[key] = Settlement(
            *key,
            cost_usd=record.cost_usd + (before.cost_usd if before else 0),
            is_final=report.succeeded or (before is not None and before.is_final),
        )
    return [found[key] for key in sorted(found)]
