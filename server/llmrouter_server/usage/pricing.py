"""What tokens cost. Money is Decimal until it leaves the server."""

from __future__ import annotations

from decimal import Decimal

TOKENS_PRICED = Decimal(1_000_000)


def cost_usd(
    *, input_tokens: int, output_tokens: int, input_cost_per_1m: Decimal, output_cost_per_1m: Decimal
) -> Decimal:
    """Return the cost in US dollars, exactly: prices have 4 decimals, so it has at most 10."""
    return (input_tokens * input_cost_per_1m + output_tokens * output_cost_per_1m) / TOKENS_PRICED
