"""The scores of the 21 seeded models, against values worked out by hand.

With cost = input price + output price, and the dearest and the slowest taken over the rows of one table:
cost score = 1 - cost/dearest, latency score = 1 - latency/slowest, quality score = rating/10, and
composite = 0.4 cost score + 0.4 latency score + 0.2 quality score. Each table is in the order of the answer.
"""

from __future__ import annotations

from fractions import Fraction as F  # noqa: N817 - the tables are read as arithmetic
from typing import TYPE_CHECKING, NamedTuple

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.routing.eligibility import Exclusion, Need
from llmrouter_server.routing.scoring import PRESETS, Tokens, Weights
from llmrouter_server.routing.selection import decide
from unit.seed_catalog import ALL_KEYS, MODELS, NO_KEYS, PROVIDERS

if TYPE_CHECKING:
    from uuid import UUID


class Row(NamedTuple):
    display_name: str
    cost: F
    latency: F
    quality: F
    composite: float


# Dearest 0.10 + 0.10 = 0.20, slowest 400 ms.
ECO_NO_KEYS = [
    # cost 0.00: 1; 200 ms: 1 - 200/400; 7.5; 0.4 + 0.2 + 0.15
    Row("Qwen 2.5 32B", F(1), F(1, 2), F(3, 4), 0.750000),
    # cost 0.20: 0; 400 ms: 0; 9.0; 0 + 0 + 0.18
    Row("Llama 3.1 405B", F(0), F(0), F(9, 10), 0.180000),
]

# Dearest 0.20, slowest 400 ms.
ECO_ALL_KEYS = [
    # cost 0.00: 1; 200 ms: 1 - 200/400; 7.5; 0.4 + 0.2 + 0.15
    Row("Qwen 2.5 32B", F(1), F(1, 2), F(3, 4), 0.750000),
    # cost 0.00: 1; 250 ms: 1 - 250/400; 8.0; 0.4 + 0.15 + 0.16
    Row("Mixtral 8x7B", F(1), F(3, 8), F(4, 5), 0.710000),
    # cost 0.00: 1; 300 ms: 1 - 300/400; 8.5; 0.4 + 0.1 + 0.17
    Row("Llama 3.1 70B", F(1), F(1, 4), F(17, 20), 0.670000),
    # cost 0.20: 0; 400 ms: 0; 9.0; 0 + 0 + 0.18
    Row("Llama 3.1 405B", F(0), F(0), F(9, 10), 0.180000),
]

# Dearest 0.27 + 1.10 = 1.37, slowest 400 ms.
BALANCED_NO_KEYS = [
    # cost 0.75: 1 - 75/137; 350 ms: 1 - 350/400; 8.8; 0.181022 + 0.05 + 0.176
    Row("Qwen 2.5 72B Instruct", F(62, 137), F(1, 8), F(22, 25), 0.407022),
    # cost 1.00: 1 - 100/137; 300 ms: 1 - 300/400; 9.0; 0.108029 + 0.1 + 0.18
    Row("Llama 3.3 70B Instruct", F(37, 137), F(1, 4), F(9, 10), 0.388029),
    # cost 1.37: 0; 400 ms: 0; 9.0; 0 + 0 + 0.18
    Row("DeepSeek V3", F(0), F(0), F(9, 10), 0.180000),
]

# Dearest 2.50 + 10.00 = 12.50, slowest 600 ms.
BALANCED_ALL_KEYS = [
    # cost 1.00: 1 - 100/1250; 300 ms: 1 - 300/600; 9.0; 0.368 + 0.2 + 0.18
    Row("Llama 3.3 70B Instruct", F(23, 25), F(1, 2), F(9, 10), 0.748000),
    # cost 0.75: 1 - 75/1250; 350 ms: 1 - 350/600; 8.8; 0.376 + 0.166667 + 0.176
    Row("Qwen 2.5 72B Instruct", F(47, 50), F(5, 12), F(22, 25), 0.718667),
    # cost 1.50: 1 - 150/1250; 350 ms: 1 - 350/600; 8.7; 0.352 + 0.166667 + 0.174
    Row("Claude 3.5 Haiku", F(22, 25), F(5, 12), F(87, 100), 0.692667),
    # cost 0.75: 1 - 75/1250; 400 ms: 1 - 400/600; 8.5; 0.376 + 0.133333 + 0.17
    Row("GPT-4o Mini", F(47, 50), F(1, 3), F(17, 20), 0.679333),
    # cost 1.37: 1 - 137/1250; 400 ms: 1 - 400/600; 9.0; 0.35616 + 0.133333 + 0.18
    Row("DeepSeek V3", F(1113, 1250), F(1, 3), F(9, 10), 0.669493),
    # cost 1.00: 1 - 100/1250; 450 ms: 1 - 450/600; 8.5; 0.368 + 0.1 + 0.17
    Row("Qwen 2.5 72B", F(23, 25), F(1, 4), F(17, 20), 0.638000),
    # cost 6.00: 1 - 600/1250; 600 ms: 0; 9.2; 0.208 + 0 + 0.184
    Row("Llama 3.1 405B", F(13, 25), F(0), F(23, 25), 0.392000),
    # cost 12.50: 0; 500 ms: 1 - 500/600; 9.3; 0 + 0.066667 + 0.186
    Row("GPT-4o", F(0), F(1, 6), F(93, 100), 0.252667),
]

# Dearest 3.50 + 4.00 = 7.50, slowest 3500 ms.
PRECISION_NO_KEYS = [
    # cost 0.00: 1; 1500 ms: 1 - 1500/3500; 9.4; 0.4 + 0.228571 + 0.188
    Row("Gemini 2.0 Flash Thinking", F(1), F(4, 7), F(47, 50), 0.816571),
    # cost 6.25: 1 - 625/750; 600 ms: 1 - 600/3500; 9.2; 0.066667 + 0.331429 + 0.184
    Row("Gemini 1.5 Pro", F(1, 6), F(29, 35), F(23, 25), 0.582095),
    # cost 7.50: 0; 700 ms: 1 - 700/3500; 9.5; 0 + 0.32 + 0.19
    Row("Llama 3.1 405B Instruct", F(0), F(4, 5), F(19, 20), 0.510000),
    # cost 2.74: 1 - 274/750; 3500 ms: 0; 9.7; 0.253867 + 0 + 0.194
    Row("DeepSeek R1", F(238, 375), F(0), F(97, 100), 0.447867),
]

# Dearest 15.00 + 75.00 = 90.00, slowest 5000 ms.
PRECISION_ALL_KEYS = [
    # cost 6.25: 1 - 625/9000; 600 ms: 1 - 600/5000; 9.2; 0.372222 + 0.352 + 0.184
    Row("Gemini 1.5 Pro", F(67, 72), F(22, 25), F(23, 25), 0.908222),
    # cost 7.50: 1 - 750/9000; 700 ms: 1 - 700/5000; 9.5; 0.366667 + 0.344 + 0.19
    Row("Llama 3.1 405B Instruct", F(11, 12), F(43, 50), F(19, 20), 0.900667),
    # The next two are equal to the last digit: OpenRouter's priority of 90 goes before Anthropic's of 80.
    # cost 0.00: 1; 1500 ms: 1 - 1500/5000; 9.4; 0.4 + 0.28 + 0.188
    Row("Gemini 2.0 Flash Thinking", F(1), F(7, 10), F(47, 50), 0.868000),
    # cost 18.00: 1 - 1800/9000; 600 ms: 1 - 600/5000; 9.8; 0.32 + 0.352 + 0.196
    Row("Claude 3.5 Sonnet", F(4, 5), F(22, 25), F(49, 50), 0.868000),
    # cost 40.00: 1 - 4000/9000; 800 ms: 1 - 800/5000; 9.4; 0.222222 + 0.336 + 0.188
    Row("GPT-4 Turbo", F(5, 9), F(21, 25), F(47, 50), 0.746222),
    # cost 2.74: 1 - 274/9000; 3500 ms: 1 - 3500/5000; 9.7; 0.387822 + 0.12 + 0.194
    Row("DeepSeek R1", F(4363, 4500), F(3, 10), F(97, 100), 0.701822),
    # cost 15.00: 1 - 1500/9000; 3000 ms: 1 - 3000/5000; 9.5; 0.333333 + 0.16 + 0.19
    Row("O1 Mini", F(5, 6), F(2, 5), F(19, 20), 0.683333),
    # cost 90.00: 0; 800 ms: 1 - 800/5000; 9.9; 0 + 0.336 + 0.198
    Row("Claude 3 Opus", F(0), F(21, 25), F(99, 100), 0.534000),
    # cost 75.00: 1 - 7500/9000; 5000 ms: 0; 9.9; 0.066667 + 0 + 0.198
    Row("O1 Preview", F(1, 6), F(0), F(99, 100), 0.264667),
]

TABLES = [
    pytest.param(PowerLevel.ECO, NO_KEYS, ECO_NO_KEYS, id="eco, no keys"),
    pytest.param(PowerLevel.ECO, ALL_KEYS, ECO_ALL_KEYS, id="eco, all keys"),
    pytest.param(PowerLevel.BALANCED, NO_KEYS, BALANCED_NO_KEYS, id="balanced, no keys"),
    pytest.param(PowerLevel.BALANCED, ALL_KEYS, BALANCED_ALL_KEYS, id="balanced, all keys"),
    pytest.param(PowerLevel.PRECISION, NO_KEYS, PRECISION_NO_KEYS, id="precision, no keys"),
    pytest.param(PowerLevel.PRECISION, ALL_KEYS, PRECISION_ALL_KEYS, id="precision, all keys"),
]


@pytest.mark.parametrize(("level", "keys", "expected"), TABLES)
def test_every_seeded_model_has_the_scores_worked_out_by_hand(
    level: PowerLevel, keys: frozenset[UUID], expected: list[Row]
) -> None:
    ranked = decide(MODELS, Need(level, keys), Weights()).ranked
    assert [scored.model.display_name for scored in ranked] == [row.display_name for row in expected]
    for scored, row in zip(ranked, expected, strict=True):
        assert scored.cost == pytest.approx(float(row.cost), abs=1e-12), row
        assert scored.latency == pytest.approx(float(row.latency), abs=1e-12), row
        assert scored.quality == pytest.approx(float(row.quality), abs=1e-12), row
        assert round(scored.composite, 6) == row.composite, row


def test_the_default_weights_are_those_of_the_tables() -> None:
    assert Weights() == Weights(cost=0.4, latency=0.4, quality=0.2)


def test_the_tables_hold_all_21_models() -> None:
    assert len(ECO_ALL_KEYS) + len(BALANCED_ALL_KEYS) + len(PRECISION_ALL_KEYS) == 21
    assert len(MODELS) == len({model.model_id for model in MODELS}) == 21


def test_without_keys_every_other_model_of_the_level_is_excluded_for_want_of_one() -> None:
    decision = decide(MODELS, Need(PowerLevel.BALANCED), Weights())
    wanting = {model.display_name for model, reason in decision.excluded if reason is Exclusion.KEY_REQUIRED}
    assert wanting == {"GPT-4o Mini", "Claude 3.5 Haiku", "GPT-4o", "Llama 3.1 405B", "Qwen 2.5 72B"}
    assert {scored.model.provider_name for scored in decision.ranked} <= {
        name for name, (_, requires_byok) in PROVIDERS.items() if not requires_byok
    }


# From the scores above, with the weights 0.8, 0.1 and 0.1.
WINNERS = [
    # cost_optimized: 0.8 cost score + 0.1 latency score + 0.1 quality score
    ("cost_optimized", PowerLevel.ECO, NO_KEYS, "Qwen 2.5 32B", 0.925),  # 0.8 + 0.05 + 0.075; next 0.09
    ("cost_optimized", PowerLevel.ECO, ALL_KEYS, "Qwen 2.5 32B", 0.925),  # next Mixtral 8x7B, 0.9175
    ("cost_optimized", PowerLevel.BALANCED, NO_KEYS, "Qwen 2.5 72B Instruct", 0.462544),  # 0.362044 + 0.0125 + 0.088
    ("cost_optimized", PowerLevel.BALANCED, ALL_KEYS, "Qwen 2.5 72B Instruct", 0.881667),  # 0.752 + 0.041667 + 0.088
    ("cost_optimized", PowerLevel.PRECISION, NO_KEYS, "Gemini 2.0 Flash Thinking", 0.951143),  # 0.8 + 0.057143 + 0.094
    ("cost_optimized", PowerLevel.PRECISION, ALL_KEYS, "Gemini 2.0 Flash Thinking", 0.964),  # 0.8 + 0.07 + 0.094
    # latency_optimized: 0.1 cost score + 0.8 latency score + 0.1 quality score
    ("latency_optimized", PowerLevel.ECO, NO_KEYS, "Qwen 2.5 32B", 0.575),  # 0.1 + 0.4 + 0.075
    ("latency_optimized", PowerLevel.ECO, ALL_KEYS, "Qwen 2.5 32B", 0.575),  # next Mixtral 8x7B, 0.48
    ("latency_optimized", PowerLevel.BALANCED, NO_KEYS, "Llama 3.3 70B Instruct", 0.317007),  # 0.027007 + 0.2 + 0.09
    ("latency_optimized", PowerLevel.BALANCED, ALL_KEYS, "Llama 3.3 70B Instruct", 0.582),  # 0.092 + 0.4 + 0.09
    ("latency_optimized", PowerLevel.PRECISION, NO_KEYS, "Gemini 1.5 Pro", 0.771524),  # 0.016667 + 0.662857 + 0.092
    ("latency_optimized", PowerLevel.PRECISION, ALL_KEYS, "Gemini 1.5 Pro", 0.889056),  # 0.093056 + 0.704 + 0.092
    # quality_optimized: 0.1 cost score + 0.1 latency score + 0.8 quality score
    ("quality_optimized", PowerLevel.ECO, NO_KEYS, "Qwen 2.5 32B", 0.75),  # 0.1 + 0.05 + 0.6; next 0.72
    ("quality_optimized", PowerLevel.ECO, ALL_KEYS, "Llama 3.1 70B", 0.805),  # 0.1 + 0.025 + 0.68; next 0.7775
    ("quality_optimized", PowerLevel.BALANCED, NO_KEYS, "Llama 3.3 70B Instruct", 0.772007),  # 0.027007 + 0.025 + 0.72
    ("quality_optimized", PowerLevel.BALANCED, ALL_KEYS, "Llama 3.3 70B Instruct", 0.862),  # 0.092 + 0.05 + 0.72
    # 0.1 + 0.057143 + 0.752
    ("quality_optimized", PowerLevel.PRECISION, NO_KEYS, "Gemini 2.0 Flash Thinking", 0.909143),
    ("quality_optimized", PowerLevel.PRECISION, ALL_KEYS, "Claude 3.5 Sonnet", 0.952),  # 0.08 + 0.088 + 0.784
]


@pytest.mark.parametrize(("strategy", "level", "keys", "winner", "composite"), WINNERS)
def test_each_preset_has_the_winner_worked_out_by_hand(
    strategy: str, level: PowerLevel, keys: frozenset[UUID], winner: str, composite: float
) -> None:
    primary = decide(MODELS, Need(level, keys), PRESETS[strategy]).ranked[0]
    assert primary.model.display_name == winner
    assert round(primary.composite, 6) == composite


def test_each_preset_favours_its_own_criterion() -> None:
    assert set(PRESETS) == {"cost_optimized", "latency_optimized", "quality_optimized"}
    assert PRESETS["cost_optimized"] == Weights(0.8, 0.1, 0.1)
    assert PRESETS["latency_optimized"] == Weights(0.1, 0.8, 0.1)
    assert PRESETS["quality_optimized"] == Weights(0.1, 0.1, 0.8)


def test_an_estimate_of_the_request_prices_input_and_output_apart() -> None:
    """Nine tokens in for each one out turn the cheapest of BALANCED without keys from Qwen to DeepSeek.

    Per 10 million tokens, 9 in and 1 out: Qwen 9 * 0.35 + 0.40 = 3.55; DeepSeek 9 * 0.27 + 1.10 = 3.53;
    Llama 9 * 0.50 + 0.50 = 5.00, the dearest. So 1 - 355/500, 1 - 353/500 and 0.
    """
    ranked = decide(MODELS, Need(PowerLevel.BALANCED), Weights(1, 0, 0), Tokens(9_000_000, 1_000_000)).ranked
    assert [(scored.model.display_name, round(scored.cost, 6)) for scored in ranked] == [
        ("DeepSeek V3", 0.294),
        ("Qwen 2.5 72B Instruct", 0.29),
        ("Llama 3.3 70B Instruct", 0.0),
    ]
