"""A decision is told whole: to whom it belongs, with the fate of every model, as it was when it was made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
import uuid_utils.compat as uuid_utils

from custody import StubContext, calling
from decision_samples import FACTS, House, decided, keeping, written
from llmrouter.v2 import decision_pb2
from llmrouter.v2.routing_service_pb2 import GetDecisionRequest, RouteRequest, RouteResponse
from llmrouter_server.catalog.live import LiveCatalog
from llmrouter_server.catalog.past import PastSnapshots
from llmrouter_server.catalog.snapshot import PowerLevel, Snapshot
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.eligibility import Exclusion, Need
from llmrouter_server.routing.explanation import explain
from llmrouter_server.routing.log import DecisionLog
from llmrouter_server.routing.record import AppliedRule
from llmrouter_server.routing.router import Asked, Router
from llmrouter_server.routing.scoring import ONE_MILLION_EACH
from llmrouter_server.routing.service import RoutingService
from llmrouter_server.routing.state import UserStates
from llmrouter_server.rules.rule import Definition
from llmrouter_server.rules.store import RuleStore
from llmrouter_server.runtime.auth import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

LOCAL, OPENROUTER = "Local vLLM", "OpenRouter"


@pytest.fixture
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    """A database of the test's own: its catalogue may be changed."""
    async with keeping(await migrated_database()) as house:
        yield house


@dataclass
class Health:
    """What routing is told of the providers' health."""

    unhealthy: frozenset[UUID] = frozenset()
    probe_due: frozenset[UUID] = frozenset()
    live_latencies: Mapping[UUID, int] = field(default_factory=dict)

    def view(self) -> Health:
        return self

    def take_probe(self, _: UUID) -> bool:
        return True


class Door:
    """RoutingService as the server has it; only health is made up."""

    def __init__(self, house: House) -> None:
        self.health = Health()
        self.log = DecisionLog(house.store)
        live = LiveCatalog(house.catalog, lambda: False)
        users = UserStates(house.store.user_state, is_told=lambda: False, most=9)
        self.router = Router(live, users, self.health, self.log, platform_keys=house.platform_keys())
        self._service = RoutingService(self.router, house.store, self.log, PastSnapshots(house.catalog, live.current))
        self._context: Any = StubContext()

    async def route(self, user: UUID, **asked: Any) -> RouteResponse:
        with calling(user):
            route = cast("Any", self._service.Route)  # from bytes to bytes
            return RouteResponse.FromString(
                await route(route.read(RouteRequest(**asked).SerializeToString()), self._context)
            )

    async def get(self, decision_id: str, user: UUID, role: Role = Role.USER) -> decision_pb2.Decision:
        with calling(user, role):
            return await self._service.GetDecision(GetDecisionRequest(decision_id=decision_id), self._context)


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    door = Door(house)
    await door.log.start()
    yield door
    await door.log.stop()


# --- whose it is ---


@pytest.mark.parametrize("when", ["while it waits", "when it is written"])
async def test_a_decision_is_its_users_own_and_admins_and_services_see_it_too(door: Door, when: str) -> None:
    user, other = uuid4(), uuid4()
    routed = await door.route(user, explain=True)
    if when == "when it is written":
        await written(door.log, UUID(routed.decision_id))
    assert await door.get(routed.decision_id, user) == routed.explanation
    for role in (Role.ADMIN, Role.SERVICE):
        assert await door.get(routed.decision_id, other, role) == routed.explanation
    with pytest.raises(DomainError) as error:
        await door.get(routed.decision_id, other)
    assert (error.value.reason, error.value.message) == ("RESOURCE_NOT_FOUND", "there is no such decision")


@pytest.mark.parametrize(
    "decision_id", [str(uuid4()), str(uuid_utils.uuid7()), str(UUID(int=0))], ids=["version 4", "version 7", "nil"]
)
@pytest.mark.parametrize("role", list(Role))
async def test_an_id_of_no_decision_is_not_found_by_anybody(door: Door, decision_id: str, role: Role) -> None:
    with pytest.raises(DomainError, match="there is no such decision"):
        await door.get(decision_id, uuid4(), role)


@pytest.mark.parametrize("decision_id", ["", "1", "0190", f"{{{UUID(int=7)}}}", UUID(int=7).hex])
async def test_what_is_no_id_is_an_invalid_field(door: Door, decision_id: str) -> None:
    with pytest.raises(DomainError) as error:
        await door.get(decision_id, uuid4())
    assert [violation.field for violation in error.value.violations] == ["decision_id"]


# --- what is told ---


async def test_a_decision_tells_the_rule_it_was_made_by_also_when_that_is_gone(door: Door, house: House) -> None:
    providers = {each.provider_name: each.provider_id for each in (await house.catalog.load_snapshot()).providers}
    rules, admin = RuleStore(house.database), uuid4()
    definition = Definition("only one", power_level=PowerLevel.ECO, provider_ids=(providers[OPENROUTER],))
    rule = await rules.create(definition, admin_id=admin)
    routed = await door.route(user := uuid4(), power_level="PRECISION", explain=True)
    await rules.delete(rule.id, etag="", admin_id=admin)
    await written(door.log, UUID(routed.decision_id))
    told = await door.get(routed.decision_id, user)
    assert told == routed.explanation
    assert (told.rule.rule_id, told.rule.rule_name) == (str(rule.id), "only one")
    assert {each.provider_name for each in told.models if each.rank} == {OPENROUTER}
    assert not (await door.route(user)).HasField("rule")


async def test_every_model_is_told_once_candidates_by_rank_and_then_the_others_by_name(
    door: Door, house: House
) -> None:
    snapshot = await house.catalog.load_snapshot()
    for level in ("ECO", "BALANCED", "PRECISION"):
        routed = await door.route(uuid4(), power_level=level, explain=True, fallback_count=5)
        told = routed.explanation.models
        assert sorted(each.model_id for each in told) == sorted(str(each.model_id) for each in snapshot.models)
        candidates = [each for each in told if each.exclusion == decision_pb2.EXCLUSION_UNSPECIFIED]
        others = list(told)[len(candidates) :]
        assert [each.rank for each in told] == [*range(1, len(candidates) + 1), *[0] * len(others)]
        assert others == sorted(others, key=lambda each: (each.provider_name, each.model_name))
        answered = [routed.primary, *routed.fallbacks]
        assert [each.model_id for each in candidates][: len(answered)] == [each.model_id for each in answered]
        assert [each.composite_score for each in candidates][: len(answered)] == [
            each.composite_score for each in answered
        ]
        for each in told:
            is_candidate = each in candidates
            assert bool(each.exclusion_detail) != is_candidate
            assert {each.HasField(name) for name in SCORES} == {is_candidate}


SCORES = ("rank", "composite_score", "cost_score", "latency_score", "quality_score", "cost_usd", "latency_ms")


def test_every_reason_has_its_place_in_the_api() -> None:
    known = {name.removeprefix("EXCLUSION_") for name in decision_pb2.Exclusion.keys()}  # noqa: SIM118 - an enum
    assert {reason.value for reason in Exclusion} == known - {"UNSPECIFIED"}


RULE = AppliedRule(UUID(int=12), "only EU")
DETAILS = {
    Exclusion.MODEL_DISABLED: "the model is disabled",
    Exclusion.PROVIDER_DISABLED: "p is disabled",
    Exclusion.MODEL_NAME: "gpt-4o was asked for by name",
    Exclusion.POWER_LEVEL: "is ECO, BALANCED was routed for",
    Exclusion.RULE_PROVIDER: "the routing rule only EU lets only others through",
    Exclusion.OVER_BUDGET: (
        "costs 1234.5678 and 0.0001 US dollars per million input and output tokens, and the month's budget is used up"
    ),
    Exclusion.KEY_REQUIRED: "p needs a key of the user's own, and there is no active one",
    Exclusion.KEY_FAILING: "p refused the user's key in the last 15 minutes",
    Exclusion.NO_CREDENTIAL: "p takes no request without a key, and neither the user nor the operator has one there",
    Exclusion.CAPABILITY_MISSING: "lacks reasoning, vision",
    Exclusion.CONTEXT_TOO_SMALL: "holds 64000 tokens, 65000 were asked for",
    Exclusion.PROVIDER_UNHEALTHY: "p is unhealthy",
}


@pytest.mark.parametrize("reason", list(Exclusion))
async def test_each_reason_is_told_with_its_figures(house: House, reason: Exclusion) -> None:
    snapshot = await house.catalog.load_snapshot()
    fit, *_ = (each for each in snapshot.models if each.power_level is PowerLevel.BALANCED and not each.requires_byok)
    fit = replace(fit, input_cost_per_1m=0.0, output_cost_per_1m=0.0, capabilities=frozenset({"chat"}))
    model = replace(fit, model_id=uuid4(), provider_id=uuid4(), provider_name="p", max_context_tokens=64_000)
    need = Need(PowerLevel.BALANCED)
    changed: dict[Exclusion, tuple[dict[str, Any], dict[str, Any]]] = {
        Exclusion.MODEL_DISABLED: ({"model_enabled": False}, {}),
        Exclusion.PROVIDER_DISABLED: ({"provider_enabled": False}, {}),
        Exclusion.MODEL_NAME: ({"model_name": "gpt-4o-mini"}, {"model_name": "gpt-4o"}),
        Exclusion.POWER_LEVEL: ({"power_level": PowerLevel.ECO}, {}),
        Exclusion.RULE_PROVIDER: ({}, {"rule_providers": {fit.provider_id}}),
        Exclusion.OVER_BUDGET: ({"input_cost_per_1m": 1234.5678, "output_cost_per_1m": 0.0001}, {"free_only": True}),
        Exclusion.KEY_REQUIRED: ({"requires_byok": True}, {}),
        Exclusion.KEY_FAILING: (
            {"requires_byok": True},
            {"keyed_providers": {model.provider_id}, "failing_keys": {model.provider_id}},
        ),
        Exclusion.NO_CREDENTIAL: ({}, {"without_credential": {model.provider_id}}),
        Exclusion.CAPABILITY_MISSING: ({}, {"capabilities": frozenset({"chat", "vision", "reasoning"})}),
        Exclusion.CONTEXT_TOO_SMALL: ({}, {"context_tokens": 65_000}),
        Exclusion.PROVIDER_UNHEALTHY: ({}, {"unhealthy_providers": {model.provider_id}}),
    }
    of_model, of_need = changed[reason]
    other = replace(
        fit,
        model_name=of_need.get("model_name", fit.model_name),
        max_context_tokens=10**6,
        capabilities=frozenset({"chat", "vision", "reasoning"}),
    )
    catalogue = Snapshot(snapshot.number, (replace(model, **of_model), other))
    told = await explain(*decided(catalogue, replace(FACTS, need=replace(need, **of_need), rule=RULE)))
    assert [each.rank for each in told.models] == [1, 0]
    assert decision_pb2.Exclusion.Name(told.models[1].exclusion) == f"EXCLUSION_{reason.value}"
    assert told.models[1].exclusion_detail == DETAILS[reason]


@pytest.mark.parametrize(
    ("of_need", "of_facts", "detail"),
    [
        (
            {"free_only": True},
            {"budget_usd": Decimal(2), "spent_usd": Decimal("1.9999999999")},
            (
                "costs 1 and 2 US dollars per million input and output tokens, and what is left of the month's budget"
                " does not cover the request"
            ),
        ),
        (
            {"free_only": True},
            {"budget_usd": Decimal(2), "spent_usd": Decimal(2)},
            "costs 1 and 2 US dollars per million input and output tokens, and the month's budget is used up",
        ),
        (
            {"without_credential": {UUID(int=7)}, "failing_keys": {UUID(int=7)}, "keyed_providers": {UUID(int=7)}},
            {},
            "p refused the user's key in the last 15 minutes, and no other is put in its place",
        ),
    ],
)
async def test_what_the_gateway_lacked_is_told_as_it_was(
    house: House, of_need: dict[str, Any], of_facts: dict[str, Any], detail: str
) -> None:
    snapshot = await house.catalog.load_snapshot()
    free = replace(snapshot.models[0], requires_byok=False, input_cost_per_1m=0.0, output_cost_per_1m=0.0)
    priced = replace(free, model_id=uuid4(), input_cost_per_1m=1.0, output_cost_per_1m=2.0)
    priced = replace(priced, provider_id=UUID(int=7), provider_name="p")
    facts = replace(FACTS, need=Need(free.power_level, **of_need), **of_facts)
    told = await explain(*decided(Snapshot(snapshot.number, (priced, free)), facts))
    assert [each.exclusion_detail for each in told.models] == ["", detail]


async def test_a_decision_of_the_gateway_is_told_later_with_what_it_asked_for(door: Door, house: House) -> None:
    user = uuid4()
    [sought] = (each for each in (await house.catalog.load_snapshot()).models if each.provider_name == LOCAL)
    asked = Asked(user, PowerLevel.ECO, frozenset(), 0, 3, ONE_MILLION_EACH, "chat")
    asked = replace(asked, model_name=sought.model_name, allow_fallbacks=True, needs_credential=True)
    routed = await door.router.route(asked)
    told = await explain(routed.record, routed.decision)
    assert (told.model_name, told.allow_fallbacks) == (sought.model_name, True)
    without = {each.provider_id for each in told.models if each.exclusion == decision_pb2.EXCLUSION_NO_CREDENTIAL}
    assert without == set(told.without_credential_provider_ids)
    assert without
    await written(door.log, routed.record.id)
    assert await door.get(str(routed.record.id), user) == told


async def test_the_budget_and_what_came_of_it_are_told(door: Door, house: House) -> None:
    user = uuid4()
    await house.execute("insert into user_llm_settings (user_id, monthly_budget_usd) values ($1, 1.5)", user)
    await house.execute(
        "insert into llm_budget_ledger (user_id, month, spent_usd)"
        " values ($1, date_trunc('month', now() at time zone 'utc')::date, 1.5000000001)",
        user,
    )
    told = (await door.route(user, power_level="PRECISION", explain=True)).explanation
    budget = decision_pb2.BudgetFacts(monthly_budget_usd=1.5, spent_usd=1.5000000001, downgraded=True)
    assert (told.budget, told.power_level) == (budget, 1)
    assert [each.provider_name for each in told.models if each.rank] == [LOCAL]


# --- as it was ---


async def test_a_decision_by_the_catalogue_in_memory_is_told_without_reading_it(
    door: Door, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = uuid4()
    routed = await door.route(user, explain=True)
    monkeypatch.setattr(house.catalog, "load_snapshot", None)
    assert await door.get(routed.decision_id, user) == routed.explanation


async def test_a_decision_is_told_as_in_its_answer_though_everything_has_changed_since(
    door: Door, house: House
) -> None:
    user, snapshot = uuid4(), await house.catalog.load_snapshot()
    providers = {each.provider_name: each.provider_id for each in snapshot.models}
    door.health.unhealthy = frozenset({providers[LOCAL]})
    door.health.live_latencies = {each.model_id: 1000 + number for number, each in enumerate(snapshot.models)}
    asked = {"task_type": "chat", "required_capabilities": ["chat"], "min_context_tokens": 9000}
    estimate = {"estimated_input_tokens": 321, "estimated_output_tokens": 45}
    routed = [
        await door.route(user, power_level=level, explain=True, **asked, **estimate)
        for level in ("ECO", "BALANCED", "PRECISION")
    ]
    for each in routed:
        await written(door.log, UUID(each.decision_id))
    door.health.unhealthy, door.health.live_latencies = frozenset({providers[OPENROUTER]}), {}
    await house.execute("update llm_models set input_cost_per_1m = input_cost_per_1m + 7, avg_latency_ms = 1")
    await house.execute("update llm_models set is_enabled = false where id = $1", UUID(routed[0].primary.model_id))
    await house.execute("update llm_providers set priority = 1, name = name || ' of old' where requires_byok")
    for each in routed:
        assert each.explanation.models[0].latency_is_live
        assert await door.get(each.decision_id, user) == each.explanation
    later = await door.route(user, explain=True)
    assert later.catalog_snapshot > routed[0].catalog_snapshot


async def test_a_degraded_decision_and_a_probe_are_told_as_they_were(door: Door, house: House) -> None:
    user, snapshot = uuid4(), await house.catalog.load_snapshot()
    everybody = frozenset(each.provider_id for each in snapshot.models)
    door.health.unhealthy = everybody
    degraded = await door.route(user, power_level="ECO", explain=True)
    door.health.unhealthy = door.health.probe_due = frozenset({UUID(degraded.primary.provider_id)})
    probed = await door.route(user, power_level="ECO", explain=True)
    assert (degraded.explanation.degraded, probed.explanation.degraded) == (True, False)
    assert set(degraded.explanation.unhealthy_provider_ids) == set(map(str, everybody))
    assert probed.primary == degraded.primary
    assert probed.explanation.unhealthy_provider_ids == []
    for each in (degraded, probed):
        await written(door.log, UUID(each.decision_id))
        assert await door.get(each.decision_id, user) == each.explanation


async def test_spend_of_many_digits_is_told_the_same_twice(door: Door, house: House) -> None:
    facts = replace(FACTS, budget_usd=Decimal("0.10"), spent_usd=Decimal("12345678901234.0123456789"))
    record, decision = decided(await house.catalog.load_snapshot(), facts)
    await house.keep((record, decision))
    assert await door.get(str(record.id), record.user_id) == await explain(record, decision)
