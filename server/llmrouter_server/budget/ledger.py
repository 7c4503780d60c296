"""What a user's month holds and has spent, and what becomes of a hold when its request is recorded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date, datetime
    from uuid import UUID


log = logging.getLogger(__name__)

SMALLEST_USD = Decimal("1e-10")
"""Of a dollar: what the ledger counts in. A record's cost is never finer."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A user's UTC month, in US dollars."""

    spent_usd: Decimal = Decimal(0)
    """The sum of the month's records."""
    held_usd: Decimal = Decimal(0)
    """The sum of the open holds."""

    def exceeds(self, budget_usd: Decimal | None) -> bool:
        """Tell whether the budget is used up: the spend has reached it. Without a budget it never is."""
        return budget_usd is not None and self.spent_usd >= budget_usd


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Money that is to be set aside for one request."""

    id: UUID
    """Of its decision."""
    user_id: UUID
    month: date
    amount_usd: Decimal
    """More than nothing."""
    budget_usd: Decimal
    """What spend and holds of the month must stay within."""
    created_at: datetime
    expires_at: datetime


def rounded_up(amount_usd: Decimal) -> Decimal:
    """Round to what the ledger counts in, never down: a hold must cover what it is for."""
    return amount_usd.quantize(SMALLEST_USD, ROUND_CEILING)
