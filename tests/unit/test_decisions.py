"""Decisions that are kept: never another one than would be made, and only so many."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import pytest

from llmrouter_server.catalog.snapshot import PowerLevel, Snapshot
from llmrouter_server.routing import decisions as kept
from llmrouter_server.routing.decisions import Decisions
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.record import Facts, facts_to_json
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Tokens, Weights
from unit.routing_world import GROQ, LOCAL, fates
from unit.seed_catalog import MODELS

SNAPSHOT = Snapshot(7, tuple(MODELS))
FACTS = Facts(Need(PowerLevel.ECO, frozenset({GROQ})), Weights(), ONE_MILLION_EACH, "balanced", 3)
OTHERS = [
    replace(FACTS, need=replace(FACTS.need, power_level=PowerLevel.PRECISION)),
    replace(FACTS, need=replace(FACTS.need, keyed_providers=frozenset())),
    replace(FACTS, need=replace(FACTS.need, unhealthy_providers=frozenset({LOCAL}))),
    replace(FACTS, need=replace(FACTS.need, free_only=True)),
    replace(FACTS, weights=Weights(1, 0, 0)),
    replace(FACTS, tokens=Tokens(1, 2)),
]


def test_the_same_facts_are_weighed_once_whoever_asks() -> None:
    decisions = Decisions()
    made = decisions.decide(SNAPSHOT, FACTS)
    again = replace(FACTS, need=replace(FACTS.need, keyed_providers=frozenset({GROQ})), task_type="code")
    assert decisions.decide(SNAPSHOT, again) is made
    assert fates(made) == fates(FACTS.decide(MODELS))


@pytest.mark.parametrize("other", OTHERS)
def test_other_facts_are_weighed_for_themselves(other: Facts) -> None:
    decisions = Decisions()
    assert fates(decisions.decide(SNAPSHOT, FACTS)) == fates(FACTS.decide(MODELS))
    assert fates(decisions.decide(SNAPSHOT, other)) == fates(other.decide(MODELS))
    assert facts_to_json(other, decisions.decide(SNAPSHOT, other)) != facts_to_json(
        FACTS, decisions.decide(SNAPSHOT, FACTS)
    )


def test_a_new_catalogue_is_looked_at_anew() -> None:
    decisions = Decisions()
    primary = decisions.decide(SNAPSHOT, FACTS).ranked[0].model
    without = Snapshot(8, tuple(replace(model, model_enabled=model is not primary) for model in MODELS))
    assert fates(decisions.decide(without, FACTS)) == fates(FACTS.decide(without.models))
    assert decisions.decide(without, FACTS).ranked[0].model.model_id != primary.model_id


def test_new_latencies_are_looked_at_anew() -> None:
    decisions = Decisions()
    primary = decisions.decide(SNAPSHOT, FACTS).ranked[0].model.model_id
    slow = replace(FACTS, live_latencies={primary: 60_000})
    assert fates(decisions.decide(SNAPSHOT, slow)) == fates(slow.decide(MODELS))
    assert decisions.decide(SNAPSHOT, slow).ranked[0].model.model_id != primary


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_DECISIONS", 3)
    decisions = Decisions()
    made = {tokens: decisions.decide(SNAPSHOT, replace(FACTS, tokens=Tokens(tokens))) for tokens in (1, 2, 3, 4)}
    assert decisions.decide(SNAPSHOT, replace(FACTS, tokens=Tokens(4))) is made[4]
    assert decisions.decide(SNAPSHOT, replace(FACTS, tokens=Tokens(1))) is not made[1]
    assert fates(decisions.decide(SNAPSHOT, replace(FACTS, tokens=Tokens(1)))) == fates(made[1])


def test_only_so_many_selections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_VERDICTS", 3 * len(MODELS))
    decisions = Decisions()
    facts = [replace(FACTS, need=replace(FACTS.need, keyed_providers=frozenset({UUID(int=each)}))) for each in range(4)]
    made = [decisions.decide(SNAPSHOT, each).selection for each in facts]
    anew = [decisions.decide(SNAPSHOT, replace(each, tokens=Tokens(1))).selection for each in reversed(facts)]
    assert anew[0] is made[3]
    assert anew[3] is not made[0]


def test_a_new_estimate_and_other_wishes_share_what_the_need_leaves() -> None:
    decisions = Decisions()
    selection = decisions.decide(SNAPSHOT, FACTS).selection
    for other in (replace(FACTS, tokens=Tokens(1, 2)), replace(FACTS, weights=Weights(1, 0, 0))):
        assert decisions.decide(SNAPSHOT, other).selection is selection


@pytest.mark.parametrize("size", sorted({model.max_context_tokens for model in MODELS}))
def test_only_a_context_that_some_model_does_not_have_makes_a_difference(size: int) -> None:
    decisions = Decisions()
    within, without = (replace(FACTS, need=replace(FACTS.need, context_tokens=tokens)) for tokens in (size, size + 1))
    just_within = replace(FACTS, need=replace(FACTS.need, context_tokens=size - 1))
    assert decisions.decide(SNAPSHOT, within).selection is decisions.decide(SNAPSHOT, just_within).selection
    assert decisions.decide(SNAPSHOT, within).selection is not decisions.decide(SNAPSHOT, without).selection
    for facts in (just_within, within, without):
        assert fates(decisions.decide(SNAPSHOT, facts)) == fates(facts.decide(MODELS))
        assert json.loads(facts_to_json(facts, decisions.decide(SNAPSHOT, facts)))["context_tokens"] == (
            facts.need.context_tokens
        )


def test_what_is_made_of_a_decision_is_made_once() -> None:
    decision, made = FACTS.decide(MODELS), []
    for _ in range(2):
        assert decision.once("a", lambda: made.append(UUID(int=1)) or "answer") == "answer"
    assert len(made) == 1
