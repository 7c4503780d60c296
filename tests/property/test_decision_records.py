"""A decision that was written down is read back whole, and comes out the same when it is made again."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import uuid_utils.compat as uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.routing.record import (
    AppliedRule,
    DecisionRecord,
    Facts,
    choices_of,
    facts_from_json,
    facts_to_json,
    outcome_to_json,
    record_from_row,
)
from property.routing_cases import TOKENS, catalogues, needs, weightings
from unit.routing_world import fates

MODEL_IDS = [UUID(int=1000 + number) for number in range(8)]
MONEY = st.decimals(0, 10**6, places=10, allow_nan=False)

facts = st.builds(
    Facts,
    need=needs,
    weights=weightings(),
    tokens=TOKENS,
    strategy=st.sampled_from(["balanced", "cost_optimized"]),
    fallback_count=st.integers(1, 5),
    task_type=st.text(st.characters(codec="utf-8"), max_size=8),
    live_latencies=st.dictionaries(st.sampled_from(MODEL_IDS), st.integers(0, 10**6)),
    budget_usd=st.none() | MONEY,
    spent_usd=MONEY,
    rule=st.none() | st.builds(AppliedRule, st.uuids(), st.text(st.characters(codec="utf-8"), max_size=8)),
)


@given(catalogues() | catalogues(always_eligible=True), facts)
def test_a_stored_decision_is_made_again_exactly(models: list, facts: Facts) -> None:
    decision = facts.decide(models)
    record = DecisionRecord(
        id=uuid_utils.uuid7(),
        user_id=UUID(int=1),
        snapshot_number=7,
        facts=facts,
        choices=choices_of(decision, facts.fallback_count),
        degraded=decision.degraded,
    )
    row = {
        "id": record.id,
        "user_id": record.user_id,
        "snapshot_number": 7,
        "facts": json.loads(facts_to_json(facts, decision)),
        "outcome": json.loads(outcome_to_json(record, decision)),
    }
    read = record_from_row(row)
    again = read.facts.decide(models)
    assert fates(again) == fates(decision)
    assert choices_of(again, facts.fallback_count) == read.choices == record.choices
    candidates = {scored.model.model_id for scored in decision.ranked}
    kept = {model: latency for model, latency in facts.live_latencies.items() if model in candidates}
    assert read == replace(record, facts=replace(facts, live_latencies=kept))


@given(facts)
def test_facts_from_before_the_gateway_are_read_as_those_of_a_request_that_named_no_model(facts: Facts) -> None:
    written = json.loads(facts_to_json(facts, facts.decide([])))
    for name in ("model_name", "allow_fallbacks", "without_credential"):
        del written[name]
    need = replace(facts.need, model_name=None, allow_fallbacks=False, without_credential=frozenset())
    assert facts_from_json(written) == replace(facts, need=need, live_latencies={})


@given(facts)
def test_facts_without_a_rule_are_written_as_the_release_before_rules_wrote_and_reads_them(facts: Facts) -> None:
    without = replace(facts, need=replace(facts.need, rule_providers=None), rule=None, live_latencies={})
    written = json.loads(facts_to_json(without, without.decide([])))
    assert {"rule", "rule_providers"}.isdisjoint(written)
    assert facts_from_json(written) == without


@given(catalogues(), facts)
def test_a_live_latency_counts_as_if_the_catalogue_said_so(models: list, facts: Facts) -> None:
    said = [
        replace(model, avg_latency_ms=facts.live_latencies.get(model.model_id, model.avg_latency_ms))
        for model in models
    ]
    live = [(each.model.model_id, *each[1:]) for each in facts.decide(models).ranked]
    catalogued = [(each.model.model_id, *each[1:]) for each in replace(facts, live_latencies={}).decide(said).ranked]
    assert live == catalogued
