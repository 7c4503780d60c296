"""RoutingRuleService."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from llmrouter.v2.decision_pb2 import Weights
from llmrouter.v2.power_level_pb2 import ECO, PRECISION
from llmrouter.v2.routing_rule_service_pb2 import (
    CreateRoutingRuleRequest,
    DeleteRoutingRuleRequest,
    GetRoutingRuleRequest,
    ListRoutingRulesRequest,
    UpdateRoutingRuleRequest,
)
from llmrouter_server.catalog.snapshot import CatalogRule, PowerLevel
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.rules.rule import MOST_ACTIVE
from storage.catalog_house import ADMIN, CALLERS, House, Refusal, call, create_provider, open_house, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmrouter.v2.routing_rule_pb2 import RoutingRule


@pytest.fixture(scope="module")
async def house(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[House]:
    async with open_house(await migrated_database()) as opened:
        yield opened


async def create(house: House, **values: Any) -> RoutingRule:
    given = {"rule_name": f"r {uuid.uuid4()}"} | values
    if not given.keys() & {"power_level", "strategy", "weights", "provider_ids"}:
        given["power_level"] = ECO
    return await call(house.rules.CreateRoutingRule, CreateRoutingRuleRequest(**given))


async def update(house: House, rule: RoutingRule, **values: Any) -> RoutingRule:
    return await call(house.rules.UpdateRoutingRule, UpdateRoutingRuleRequest(rule_id=rule.rule_id, **values))


async def delete(house: House, rule: RoutingRule, **values: Any) -> RoutingRule:
    return await call(house.rules.DeleteRoutingRule, DeleteRoutingRuleRequest(rule_id=rule.rule_id, **values))


async def get(house: House, rule: RoutingRule) -> RoutingRule:
    return await call(house.rules.GetRoutingRule, GetRoutingRuleRequest(rule_id=rule.rule_id))


async def in_snapshot(house: House, rule: RoutingRule) -> CatalogRule | None:
    """Return the rule as the newest snapshot has it."""
    rules = (await CatalogStore(house.database).load_snapshot()).rules
    return next((each for each in rules if str(each.rule_id) == rule.rule_id), None)


def effects(rule: RoutingRule) -> tuple[object, ...]:
    weights = (rule.weights.cost, rule.weights.latency, rule.weights.quality) if rule.HasField("weights") else None
    level = rule.power_level if rule.HasField("power_level") else None
    return level, rule.strategy, weights, list(rule.provider_ids)


# --- creating ---


async def test_a_new_rule_has_the_defaults_and_is_in_the_next_snapshot(house: House) -> None:
    rule = await create(house, power_level=ECO)
    assert (rule.priority, rule.is_active, rule.condition) == (50, True, "")
    assert effects(rule) == (ECO, "", None, [])
    assert rule.etag
    assert await get(house, rule) == rule
    assert await in_snapshot(house, rule) == CatalogRule(
        uuid.UUID(rule.rule_id), rule.rule_name, power_level=PowerLevel.ECO
    )


async def test_a_rule_keeps_all_that_it_is_given(house: House) -> None:
    provider_id = (await create_provider(house)).provider_id
    values = {
        "condition": ' task_type == "batch" ',
        "power_level": PRECISION,
        "weights": Weights(cost=0.1, latency=0.2, quality=0.7),
        "provider_ids": [provider_id],
    }
    rule = await create(house, priority=0, is_active=True, **values)
    assert (rule.priority, rule.condition) == (0, 'task_type == "batch"')
    assert effects(rule) == (PRECISION, "", (0.1, 0.2, 0.7), [provider_id])
    assert await in_snapshot(house, rule) == CatalogRule(
        uuid.UUID(rule.rule_id),
        rule.rule_name,
        condition='task_type == "batch"',
        power_level=PowerLevel.PRECISION,
        weights=(0.1, 0.2, 0.7),
        provider_ids=frozenset({uuid.UUID(provider_id)}),
    )


async def test_an_inactive_rule_is_in_no_snapshot(house: House) -> None:
    rule = await create(house, is_active=False)
    assert await in_snapshot(house, rule) is None
    assert await in_snapshot(house, await update(house, rule, is_active=True)) is not None


async def test_so_many_rules_may_be_active_and_no_more(migrated_database: Callable[[], Awaitable[str]]) -> None:
    async with open_house(await migrated_database()) as house:
        first = await create(house)
        async with house.database.connection() as connection:
            await connection.execute(
                "insert into llm_routing_rules (rule_name, config)"
                " select 'filled ' || n, jsonb_build_object('power_level', 'ECO') from generate_series(1, $1::int) n",
                MOST_ACTIVE - 2,
            )
        at_once = await asyncio.gather(*(create(house) for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, grpc.aio.AioRpcError) for each in at_once) == 4
        waiting = await create(house, is_active=False)
        for too_many in (create(house), update(house, waiting, is_active=True)):
            assert (await refusal(too_many))[1:3] == ("INVALID_FIELD", ["is_active"])
        await update(house, first, priority=7)
        await update(house, first, is_active=False)
        assert (await update(house, waiting, is_active=True)).is_active
        assert (await refusal(update(house, first, is_active=True))).fields == ["is_active"]
        assert len((await CatalogStore(house.database).load_snapshot()).rules) == MOST_ACTIVE


async def test_all_that_is_wrong_with_a_rule_is_told_at_once(house: House) -> None:
    request = CreateRoutingRuleRequest(
        rule_name=" ",
        priority=1001,
        condition="task_type = 1",
        power_level=9,  # type: ignore[arg-type]
        strategy="cheap",
        weights=Weights(cost=2, latency=0, quality=float("nan")),
        provider_ids=["x", *[str(uuid.uuid4())] * 2],
    )
    refused = await refusal(call(house.rules.CreateRoutingRule, request))
    assert refused.reason == "INVALID_FIELD"
    assert sorted(refused.fields) == sorted(
        [
            *["rule_name", "priority", "condition", "power_level", "strategy"],
            *["weights", "weights", "weights.cost", "weights.quality"],  # beside strategy, and their sum
            *["provider_ids", "provider_ids"],
        ]
    )


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, ["power_level"]),
        ({"strategy": "balanced", "weights": Weights(cost=1)}, ["weights"]),
        ({"weights": Weights(cost=0.5)}, ["weights"]),
        ({"weights": Weights(cost=0.5, latency=0.502)}, ["weights"]),
        ({"power_level": ECO, "rule_name": "x" * 101}, ["rule_name"]),
        ({"power_level": ECO, "condition": "x" * 1001}, ["condition"]),
        ({"power_level": ECO, "condition": "now"}, ["condition"]),
        ({"power_level": ECO, "condition": "true\n&& true"}, ["condition"]),
        ({"provider_ids": [str(uuid.uuid4()) for _ in range(51)]}, ["provider_ids"]),
        ({"provider_ids": [str(uuid.uuid4())]}, ["provider_ids"]),
        ({"provider_ids": [str(uuid.uuid4()), str(uuid.uuid4())]}, ["provider_ids", "provider_ids"]),
    ],
)
async def test_what_no_rule_may_be_is_refused(house: House, values: dict[str, Any], fields: list[str]) -> None:
    request = CreateRoutingRuleRequest(**({"rule_name": f"r {uuid.uuid4()}"} | values))
    refused = await refusal(call(house.rules.CreateRoutingRule, request))
    assert (refused.reason, refused.fields) == ("INVALID_FIELD", fields)


async def test_a_rule_has_a_name_of_its_own(house: House) -> None:
    rule, other = await create(house), await create(house)
    expected = Refusal(
        grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", [], {"field": "rule_name", "value": rule.rule_name}
    )
    assert await refusal(create(house, rule_name=rule.rule_name)) == expected
    assert await refusal(update(house, other, rule_name=rule.rule_name)) == expected


# --- changing ---


async def test_an_update_changes_what_is_given_and_leaves_the_rest(house: House) -> None:
    rule = await create(house, condition="true", priority=9, power_level=ECO, strategy="cost_optimized")
    changed = await update(house, rule, priority=0)
    assert (changed.priority, changed.condition, changed.rule_name) == (0, "true", rule.rule_name)
    assert effects(changed) == effects(rule)
    assert changed.etag != rule.etag
    assert (await update(house, rule, condition="")).condition == ""
    unchanged = await update(house, rule, condition="", priority=0)
    assert unchanged == await get(house, rule)


async def test_strategy_and_weights_take_each_others_place(house: House) -> None:
    rule = await create(house, strategy="cost_optimized")
    weighed = await update(house, rule, weights=Weights(latency=0.5, quality=0.5))
    assert effects(weighed) == (None, "", (0, 0.5, 0.5), [])
    assert effects(await update(house, rule, strategy="balanced")) == (None, "balanced", None, [])
    both = {"strategy": "balanced", "weights": Weights(cost=1)}
    assert (await refusal(update(house, rule, **both))).fields == ["weights"]


async def test_an_effect_can_be_taken_away_while_another_is_left(house: House) -> None:
    provider_id = (await create_provider(house)).provider_id
    rule = await create(house, power_level=ECO, weights=Weights(cost=1), provider_ids=[provider_id])
    assert effects(await update(house, rule, clear_power_level=True)) == (None, "", (1, 0, 0), [provider_id])
    assert effects(await update(house, rule, provider_ids=[])) == (None, "", (1, 0, 0), [provider_id])
    assert effects(await update(house, rule, clear_provider_ids=True)) == (None, "", (1, 0, 0), [])
    refused = await refusal(update(house, rule, clear_weights=True))
    assert (refused.reason, refused.fields) == ("INVALID_FIELD", ["power_level"])
    assert effects(await update(house, rule, clear_weights=True, power_level=PRECISION)) == (PRECISION, "", None, [])


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"clear_power_level": True, "power_level": ECO}, "clear_power_level"),
        ({"clear_weights": True, "strategy": "balanced"}, "clear_weights"),
        ({"clear_weights": True, "weights": Weights(cost=1)}, "clear_weights"),
        ({"clear_provider_ids": True, "provider_ids": [str(uuid.uuid4())]}, "clear_provider_ids"),
        ({"strategy": ""}, "strategy"),
        ({"rule_name": ""}, "rule_name"),
    ],
)
async def test_what_contradicts_itself_is_refused(house: House, values: dict[str, Any], field: str) -> None:
    rule = await create(house, power_level=ECO, strategy="balanced")
    assert (await refusal(update(house, rule, **values))).fields == [field]
    assert await get(house, rule) == rule


async def test_an_etag_holds_for_one_state_of_one_rule(house: House) -> None:
    rule = await create(house)
    changed = await update(house, rule, priority=1, etag=rule.etag)
    expected = Refusal(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", [], {"resource": "rule"})
    assert await refusal(update(house, rule, priority=2, etag=rule.etag)) == expected
    assert await refusal(delete(house, rule, etag=rule.etag)) == expected
    assert await delete(house, rule, etag=changed.etag) == changed


async def test_of_changes_at_once_with_the_same_etag_one_is_made(house: House) -> None:
    rule = await create(house)
    made = await asyncio.gather(
        *(update(house, rule, priority=number, etag=rule.etag) for number in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(each, BaseException) for each in made) == 1


async def test_a_deleted_rule_is_gone_and_its_name_free(house: House) -> None:
    rule = await create(house)
    assert await delete(house, rule) == rule
    expected = Refusal(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", [], {"resource": "rule"})
    for again in (get(house, rule), delete(house, rule), update(house, rule, priority=1)):
        assert await refusal(again) == expected
    assert await in_snapshot(house, rule) is None
    assert (await create(house, rule_name=rule.rule_name)).rule_id != rule.rule_id


async def test_each_change_is_told_once_and_recorded_with_what_it_changed(house: House) -> None:
    before = len(house.refresh.numbers)
    rule = await create(house, condition="true", power_level=ECO)
    await update(house, rule, priority=7)
    await update(house, rule, priority=7)
    await delete(house, rule)
    assert len(house.refresh.numbers) == before + 4  # also of the one that changed nothing: somebody tries again
    async with house.database.connection() as connection:
        rows = await connection.fetch(
            "select admin_id, resource, action, before, after from llm_admin_changes"
            " where resource_id = $1 order by id",
            uuid.UUID(rule.rule_id),
        )
    whole = {
        "rule_name": rule.rule_name,
        "priority": 50,
        "is_active": True,
        "condition": "true",
        "power_level": "ECO",
        "strategy": None,
        "weights": None,
        "provider_ids": [],
    }
    assert [tuple(row) for row in rows] == [
        (ADMIN.user_id, "routing_rule", "create", {}, whole),
        (ADMIN.user_id, "routing_rule", "update", {"priority": 50}, {"priority": 7}),
        (ADMIN.user_id, "routing_rule", "delete", whole | {"priority": 7}, {}),
    ]


# --- reading ---


async def test_rules_are_listed_in_the_order_in_which_they_are_tried_page_by_page(
    migrated_database: Callable[[], Awaitable[str]],
) -> None:
    async with open_house(await migrated_database()) as house:
        for name, priority, is_active in [
            ("b", 50, True), ("a", 50, False), ("B", 50, True), ("ü", 50, True), ("z", 51, True), ("A", 0, True)
        ]:  # fmt: skip
            await create(house, rule_name=name, priority=priority, is_active=is_active)
        for active_only, expected in ((False, ["z", "B", "a", "b", "ü", "A"]), (True, ["z", "B", "b", "ü", "A"])):
            for size in (1, 2, 100):
                names, token, more = [], "", True
                while more:
                    request = ListRoutingRulesRequest(active_only=active_only, page_size=size, page_token=token)
                    page = await call(house.rules.ListRoutingRules, request)
                    names += [each.rule_name for each in page.rules]
                    token, more = page.next_page_token, bool(page.next_page_token)
                assert names == expected
        snapshot = await CatalogStore(house.database).load_snapshot()
        assert [each.rule_name for each in snapshot.rules] == ["z", "B", "b", "ü", "A"]


@pytest.mark.parametrize("request_", [{"page_size": 501}, {"page_token": "x"}])
async def test_a_page_that_cannot_be_is_refused(house: House, request_: dict[str, Any]) -> None:
    refused = await refusal(call(house.rules.ListRoutingRules, ListRoutingRulesRequest(**request_)))
    assert (refused.reason, refused.fields) == ("INVALID_FIELD", [*request_])


@pytest.mark.parametrize("caller", [name for name in CALLERS if name in {"user", "service"}])
async def test_rules_are_for_admins(house: House, caller: str) -> None:
    rule_id = str(uuid.uuid4())
    for rpc, request in [
        (house.rules.ListRoutingRules, ListRoutingRulesRequest()),
        (house.rules.GetRoutingRule, GetRoutingRuleRequest(rule_id=rule_id)),
        (house.rules.CreateRoutingRule, CreateRoutingRuleRequest(rule_name="r", power_level=ECO)),
        (house.rules.UpdateRoutingRule, UpdateRoutingRuleRequest(rule_id=rule_id)),
        (house.rules.DeleteRoutingRule, DeleteRoutingRuleRequest(rule_id=rule_id)),
    ]:
        assert (await refusal(call(rpc, request, caller))).reason == "ROLE_REQUIRED"
