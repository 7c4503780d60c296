from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.budget.ledger import BudgetState, Hold, rounded_up
from llmrouter_server.usage.settlement import Settlement

AMOUNTS = st.decimals(0, 10**6, places=10)


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


@given(amount=AMOUNTS, cost=AMOUNTS, is_final=st.booleans())
def test_settling_never_adds_to_what_is_spent_and_held_unless_more_was_spent_than_held(
    amount: Decimal, cost: Decimal, is_final: bool
) -> None:
    hold = Hold(uuid.uuid4(), uuid.uuid4(), date(2026, 3, 1), amount)
    left = hold.left_after(Settlement(hold.id, hold.user_id, cost, is_final))
    assert left == (0 if is_final else max(Decimal(0), amount - cost))
    assert cost + left <= max(amount, cost)


@given(st.decimals(0, 10**6, allow_nan=False, places=14))
def test_a_hold_is_rounded_up_by_less_than_the_ledger_counts_in(amount: Decimal) -> None:
    assert amount <= rounded_up(amount) < amount + Decimal("1e-10")
    assert rounded_up(rounded_up(amount)) == rounded_up(amount)
