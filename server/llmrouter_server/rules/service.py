"""The door of the routing rules: RoutingRuleService."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llmrouter.v2 import routing_rule_pb2, routing_rule_service_pb2, routing_rule_service_pb2_grpc
from llmrouter_server.rules.rule import Definition
from llmrouter_server.rules.wire import read_definition, rule_message
from llmrouter_server.runtime.fields import Fields, next_page_token
from llmrouter_server.runtime.interceptor import current_caller, mark_created

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmrouter_server.rules.store import RuleStore
    from llmrouter_server.runtime.interceptor import Context


class RoutingRuleService(routing_rule_service_pb2_grpc.RoutingRuleServiceServicer):
    """Routing rules, for admins."""

    def __init__(self, store: RuleStore, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is awaited after each change and before its answer."""
        self._store, self._changed = store, changed

    async def ListRoutingRules(
        self, request: routing_rule_service_pb2.ListRoutingRulesRequest, _context: Context
    ) -> routing_rule_service_pb2.ListRoutingRulesResponse:
        fields = Fields()
        size = fields.page_size(request.page_size)
        after = cast("tuple[int, str] | None", fields.page_token(request.page_token, int, str))
        fields.done()
        found = await self._store.list(active_only=request.active_only, after=after, limit=size + 1)
        page = found[:size]
        last = page[-1].definition if len(found) > size else None
        return routing_rule_service_pb2.ListRoutingRulesResponse(
            rules=[rule_message(rule) for rule in page],
            next_page_token=next_page_token(last.priority, last.rule_name) if last else "",
        )

    async def GetRoutingRule(
        self, request: routing_rule_service_pb2.GetRoutingRuleRequest, _context: Context
    ) -> routing_rule_pb2.RoutingRule:
        fields = Fields()
        rule_id = fields.uuid("rule_id", request.rule_id)
        fields.done()
        return rule_message(await self._store.get(rule_id))

    async def CreateRoutingRule(
        self, request: routing_rule_service_pb2.CreateRoutingRuleRequest, context: Context
    ) -> routing_rule_pb2.RoutingRule:
        fields = Fields()
        values = read_definition(fields, request)
        fields.done()
        definition = values.applied_to(Definition(rule_name=""))
        rule = await self._store.create(definition, admin_id=current_caller().user_id)
        await self._changed()
        await mark_created(context)
        return rule_message(rule)

    async def UpdateRoutingRule(
        self, request: routing_rule_service_pb2.UpdateRoutingRuleRequest, _context: Context
    ) -> routing_rule_pb2.RoutingRule:
        fields = Fields()
        rule_id = fields.uuid("rule_id", request.rule_id)
        changes = read_definition(fields, request)
        fields.done()
        rule = await self._store.update(rule_id, changes, etag=request.etag, admin_id=current_caller().user_id)
        await self._changed()
        return rule_message(rule)

    async def DeleteRoutingRule(
        self, request: routing_rule_service_pb2.DeleteRoutingRuleRequest, _context: Context
    ) -> routing_rule_pb2.RoutingRule:
        fields = Fields()
        rule_id = fields.uuid("rule_id", request.rule_id)
        fields.done()
        rule = await self._store.delete(rule_id, etag=request.etag, admin_id=current_caller().user_id)
        await self._changed()
        return rule_message(rule)
