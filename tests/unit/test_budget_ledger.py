from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.budget.ledger import BudgetState, rounded_up


@pytest.mark.parametrize(
    ("spent", "held", "budget", "exceeded"),
    [
        ("9.9999999999", "5", "10", False),
        ("10", "0", "10", True),
        ("12", "0", "10", True),
        ("0", "0", "0", True),
        ("12", "0", None, False),
    ],
)
def test_a_budget_is_used_up_when_the_spend_has_reached_it(
    spent: str, held: str, budget: str | None, exceeded: bool
) -> None:
    state = BudgetState(Decimal(spent), Decimal(held))
    assert state.exceeds(None if budget is None else Decimal(budget)) is exceeded


@given(st.decimals(0, 10**6, allow_nan=False, places=14))
def test_a_hold_is_rounded_up_by_less_than_the_ledger_counts_in(amount: Decimal) -> None:
    assert amount <= rounded_up(amount) < amount + Decimal("1e-10")
    assert rounded_up(rounded_up(amount)) == rounded_up(amount)
