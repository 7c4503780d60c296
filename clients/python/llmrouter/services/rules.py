"""RoutingRuleService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.pages import AsyncPages, Pages
from llmrouter.v2.power_level_pb2 import PowerLevel
from llmrouter.v2.routing_rule_pb2 import RoutingRule
from llmrouter.v2.routing_rule_service_pb2 import (
    CreateRoutingRuleRequest,
    DeleteRoutingRuleRequest,
    GetRoutingRuleRequest,
    ListRoutingRulesRequest,
    ListRoutingRulesResponse,
    UpdateRoutingRuleRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers
    from llmrouter.v2.decision_pb2 import Weights

_SERVICE = "/llmrouter.v2.RoutingRuleService/"


class RoutingRuleService:
    """The operator's routing rules.

    Every RPC needs the role admin, and every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or
    DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: Channel) -> None:
        self.ListRoutingRules = channel.unary(
            _SERVICE + "ListRoutingRules", ListRoutingRulesRequest, ListRoutingRulesResponse
        )
        """As list_routing_rules, with the messages of the protos."""
        self.GetRoutingRule = channel.unary(_SERVICE + "GetRoutingRule", GetRoutingRuleRequest, RoutingRule)
        """As get_routing_rule, with the messages of the protos."""
        self.CreateRoutingRule = channel.unary(_SERVICE + "CreateRoutingRule", CreateRoutingRuleRequest, RoutingRule)
        """As create_routing_rule, with the messages of the protos."""
        self.UpdateRoutingRule = channel.unary(_SERVICE + "UpdateRoutingRule", UpdateRoutingRuleRequest, RoutingRule)
        """As update_routing_rule, with the messages of the protos."""
        self.DeleteRoutingRule = channel.unary(_SERVICE + "DeleteRoutingRule", DeleteRoutingRuleRequest, RoutingRule)
        """As delete_routing_rule, with the messages of the protos."""

    def list_routing_rules(
        self,
        *,
        active_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Pages[RoutingRule, ListRoutingRulesResponse]:
        """Lists routing rules in the order in which they are tried: by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        active_only: Only active rules. Default false: all.
        page_size: The most rules in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        def fetch(token: str) -> ListRoutingRulesResponse:
            request = ListRoutingRulesRequest(active_only=active_only, page_size=page_size, page_token=token)
            return self.ListRoutingRules(request, timeout=timeout, metadata=headers)

        return Pages(fetch, page_token, lambda page: page.rules, lambda page: page.next_page_token)

    def get_routing_rule(
        self, rule_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> RoutingRule:
        """Returns a routing rule, active or not.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        rule_id: UUID of the rule, from the path.
        """
        request = GetRoutingRuleRequest(rule_id=rule_id)
        return self.GetRoutingRule(request, timeout=timeout, metadata=headers)

    def create_routing_rule(
        self,
        rule_name: str,
        *,
        priority: int | None = None,
        is_active: bool | None = None,
        condition: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        strategy: str = "",
        weights: Weights | None = None,
        provider_ids: Iterable[str] = (),
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RoutingRule:
        """Creates a routing rule.

        Answers HTTP 201.

        Errors: INVALID_FIELD, also for a condition that does not parse, is not of type bool or could take too
        long, for a provider that does not exist, for a rule without any effect, and for one more than 200
        active rules; ALREADY_EXISTS when the name is taken.

        rule_name: Unique name, 1 to 100 characters.
        priority: 0 to 1000. Default 50.
        is_active: Whether it takes part in routing, which at most 200 rules do. Default true.
        condition: When the rule holds: a CEL expression of type bool, at most 1,000 characters. Default:
            always.
        power_level: The power level to route for. Default: the rule leaves it as it is.
        strategy: How candidates are weighed: `balanced`, `cost_optimized`, `latency_optimized` or
            `quality_optimized`.
        weights: How candidates are weighed, exactly: each weight 0 to 1, together 1 (within 0.001).
        provider_ids: UUIDs of the only providers that may be used, at most 50. Default: all of them.
        """
        request = CreateRoutingRuleRequest(
            rule_name=rule_name,
            priority=priority,
            is_active=is_active,
            condition=condition,
            power_level=power_level,
            strategy=strategy,
            weights=weights,
            provider_ids=provider_ids,
        )
        return self.CreateRoutingRule(request, timeout=timeout, metadata=headers)

    def update_routing_rule(
        self,
        rule_id: str,
        *,
        rule_name: str | None = None,
        priority: int | None = None,
        is_active: bool | None = None,
        condition: str | None = None,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        clear_power_level: bool = False,
        strategy: str | None = None,
        weights: Weights | None = None,
        clear_weights: bool = False,
        provider_ids: Iterable[str] = (),
        clear_provider_ids: bool = False,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RoutingRule:
        """Changes the given fields of a routing rule and leaves the others as they are.

        Errors: INVALID_FIELD, as for CreateRoutingRule; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is
        taken; ETAG_MISMATCH.

        rule_id: UUID of the rule, from the path.
        rule_name: New name, 1 to 100 characters.
        priority: New priority, 0 to 1000.
        is_active: Activate or deactivate.
        condition: New condition, at most 1,000 characters; an empty one holds always.
        power_level: New power level.
        clear_power_level: True: the rule leaves the power level as it is from now on. Not together with
            power_level.
        strategy: New strategy, in place of the rule's strategy or weights.
        weights: New weights, in place of the rule's strategy or weights. Not together with strategy.
        clear_weights: True: the rule has neither strategy nor weights from now on. Not together with one of
            them.
        provider_ids: UUIDs of the only providers that may be used; given, they replace the old ones as a whole.
            An empty list leaves them as they are.
        clear_provider_ids: True: the rule lets every provider through from now on. Not together with
            provider_ids.
        etag: The etag of the rule as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateRoutingRuleRequest(
            rule_id=rule_id,
            rule_name=rule_name,
            priority=priority,
            is_active=is_active,
            condition=condition,
            power_level=power_level,
            clear_power_level=clear_power_level,
            strategy=strategy,
            weights=weights,
            clear_weights=clear_weights,
            provider_ids=provider_ids,
            clear_provider_ids=clear_provider_ids,
            etag=etag,
        )
        return self.UpdateRoutingRule(request, timeout=timeout, metadata=headers)

    def delete_routing_rule(
        self, rule_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> RoutingRule:
        """Erases a routing rule and returns it as it was.

        Decisions that it made still name it.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        rule_id: UUID of the rule, from the path.
        etag: As in UpdateRoutingRuleRequest.
        """
        request = DeleteRoutingRuleRequest(rule_id=rule_id, etag=etag)
        return self.DeleteRoutingRule(request, timeout=timeout, metadata=headers)


class AsyncRoutingRuleService:
    """The operator's routing rules.

    Every RPC needs the role admin, and every RPC can also fail with UNAUTHENTICATED, ROLE_REQUIRED, UNAVAILABLE or
    DEADLINE_EXCEEDED.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self.ListRoutingRules = channel.unary(
            _SERVICE + "ListRoutingRules", ListRoutingRulesRequest, ListRoutingRulesResponse
        )
        """As list_routing_rules, with the messages of the protos."""
        self.GetRoutingRule = channel.unary(_SERVICE + "GetRoutingRule", GetRoutingRuleRequest, RoutingRule)
        """As get_routing_rule, with the messages of the protos."""
        self.CreateRoutingRule = channel.unary(_SERVICE + "CreateRoutingRule", CreateRoutingRuleRequest, RoutingRule)
        """As create_routing_rule, with the messages of the protos."""
        self.UpdateRoutingRule = channel.unary(_SERVICE + "UpdateRoutingRule", UpdateRoutingRuleRequest, RoutingRule)
        """As update_routing_rule, with the messages of the protos."""
        self.DeleteRoutingRule = channel.unary(_SERVICE + "DeleteRoutingRule", DeleteRoutingRuleRequest, RoutingRule)
        """As delete_routing_rule, with the messages of the protos."""

    def list_routing_rules(
        self,
        *,
        active_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> AsyncPages[RoutingRule, ListRoutingRulesResponse]:
        """Lists routing rules in the order in which they are tried: by descending priority, then name.

        Errors: INVALID_FIELD for a page_size or page_token out of range.

        active_only: Only active rules. Default false: all.
        page_size: The most rules in one answer, 1 to 500. Default (0) 100.
        page_token: The `next_page_token` of the answer before; empty for the first page.
        """

        async def fetch(token: str) -> ListRoutingRulesResponse:
            request = ListRoutingRulesRequest(active_only=active_only, page_size=page_size, page_token=token)
            return await self.ListRoutingRules(request, timeout=timeout, metadata=headers)

        return AsyncPages(fetch, page_token, lambda page: page.rules, lambda page: page.next_page_token)

    async def get_routing_rule(
        self, rule_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> RoutingRule:
        """Returns a routing rule, active or not.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND.

        rule_id: UUID of the rule, from the path.
        """
        request = GetRoutingRuleRequest(rule_id=rule_id)
        return await self.GetRoutingRule(request, timeout=timeout, metadata=headers)

    async def create_routing_rule(
        self,
        rule_name: str,
        *,
        priority: int | None = None,
        is_active: bool | None = None,
        condition: str = "",
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        strategy: str = "",
        weights: Weights | None = None,
        provider_ids: Iterable[str] = (),
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RoutingRule:
        """Creates a routing rule.

        Answers HTTP 201.

        Errors: INVALID_FIELD, also for a condition that does not parse, is not of type bool or could take too
        long, for a provider that does not exist, for a rule without any effect, and for one more than 200
        active rules; ALREADY_EXISTS when the name is taken.

        rule_name: Unique name, 1 to 100 characters.
        priority: 0 to 1000. Default 50.
        is_active: Whether it takes part in routing, which at most 200 rules do. Default true.
        condition: When the rule holds: a CEL expression of type bool, at most 1,000 characters. Default:
            always.
        power_level: The power level to route for. Default: the rule leaves it as it is.
        strategy: How candidates are weighed: `balanced`, `cost_optimized`, `latency_optimized` or
            `quality_optimized`.
        weights: How candidates are weighed, exactly: each weight 0 to 1, together 1 (within 0.001).
        provider_ids: UUIDs of the only providers that may be used, at most 50. Default: all of them.
        """
        request = CreateRoutingRuleRequest(
            rule_name=rule_name,
            priority=priority,
            is_active=is_active,
            condition=condition,
            power_level=power_level,
            strategy=strategy,
            weights=weights,
            provider_ids=provider_ids,
        )
        return await self.CreateRoutingRule(request, timeout=timeout, metadata=headers)

    async def update_routing_rule(
        self,
        rule_id: str,
        *,
        rule_name: str | None = None,
        priority: int | None = None,
        is_active: bool | None = None,
        condition: str | None = None,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        clear_power_level: bool = False,
        strategy: str | None = None,
        weights: Weights | None = None,
        clear_weights: bool = False,
        provider_ids: Iterable[str] = (),
        clear_provider_ids: bool = False,
        etag: str = "",
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RoutingRule:
        """Changes the given fields of a routing rule and leaves the others as they are.

        Errors: INVALID_FIELD, as for CreateRoutingRule; RESOURCE_NOT_FOUND; ALREADY_EXISTS when the new name is
        taken; ETAG_MISMATCH.

        rule_id: UUID of the rule, from the path.
        rule_name: New name, 1 to 100 characters.
        priority: New priority, 0 to 1000.
        is_active: Activate or deactivate.
        condition: New condition, at most 1,000 characters; an empty one holds always.
        power_level: New power level.
        clear_power_level: True: the rule leaves the power level as it is from now on. Not together with
            power_level.
        strategy: New strategy, in place of the rule's strategy or weights.
        weights: New weights, in place of the rule's strategy or weights. Not together with strategy.
        clear_weights: True: the rule has neither strategy nor weights from now on. Not together with one of
            them.
        provider_ids: UUIDs of the only providers that may be used; given, they replace the old ones as a whole.
            An empty list leaves them as they are.
        clear_provider_ids: True: the rule lets every provider through from now on. Not together with
            provider_ids.
        etag: The etag of the rule as it was read: the change is made only if it is still that. Default:
            whatever it is.
        """
        request = UpdateRoutingRuleRequest(
            rule_id=rule_id,
            rule_name=rule_name,
            priority=priority,
            is_active=is_active,
            condition=condition,
            power_level=power_level,
            clear_power_level=clear_power_level,
            strategy=strategy,
            weights=weights,
            clear_weights=clear_weights,
            provider_ids=provider_ids,
            clear_provider_ids=clear_provider_ids,
            etag=etag,
        )
        return await self.UpdateRoutingRule(request, timeout=timeout, metadata=headers)

    async def delete_routing_rule(
        self, rule_id: str, *, etag: str = "", timeout: float | None = None, headers: Headers | None = None
    ) -> RoutingRule:
        """Erases a routing rule and returns it as it was.

        Decisions that it made still name it.

        Errors: INVALID_FIELD; RESOURCE_NOT_FOUND; ETAG_MISMATCH.

        rule_id: UUID of the rule, from the path.
        etag: As in UpdateRoutingRuleRequest.
        """
        request = DeleteRoutingRuleRequest(rule_id=rule_id, etag=etag)
        return await self.DeleteRoutingRule(request, timeout=timeout, metadata=headers)
