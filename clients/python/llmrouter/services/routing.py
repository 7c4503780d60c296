"""RoutingService of the protos, for both clients."""

# Made from the protos by protoc_gen_services.py: do not edit.

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrouter.v2.decision_pb2 import Decision
from llmrouter.v2.power_level_pb2 import PowerLevel
from llmrouter.v2.routing_service_pb2 import GetDecisionRequest, RouteRequest, RouteResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmrouter.aio_calls import AsyncChannel
    from llmrouter.calls import Channel, Headers

_SERVICE = "/llmrouter.v2.RoutingService/"


class RoutingService:
    """Decides which model of which provider to use."""

    def __init__(self, channel: Channel) -> None:
        self.Route = channel.unary(_SERVICE + "Route", RouteRequest, RouteResponse)
        """As route, with the messages of the protos."""
        self.GetDecision = channel.unary(_SERVICE + "GetDecision", GetDecisionRequest, Decision)
        """As get_decision, with the messages of the protos."""

    def route(
        self,
        *,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        task_type: str = "",
        fallback_count: int | None = None,
        required_capabilities: Iterable[str] = (),
        min_context_tokens: int = 0,
        estimated_input_tokens: int = 0,
        estimated_output_tokens: int = 0,
        user_id: str = "",
        explain: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RouteResponse:
        """Returns the best model for a request, and what to fall back to.

        The same request over the same catalogue and settings gives the same answer on every replica.

        For every user, for themselves; the role service names the user it asks for. Errors: INVALID_FIELD;
        NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED when the month's budget is used up and the user's settings say
        `reject`; ROLE_REQUIRED when a user names another user; UNAUTHENTICATED; UNAVAILABLE; DEADLINE_EXCEEDED.

        power_level: Default: the user's preferred power level.
        task_type: What the request is about, for instance `chat`, at most 64 characters. Noted, and known to
            the routing rules; it changes no choice by itself.
        fallback_count: The most fallbacks in the answer, 1 to 5. Default 3.
        required_capabilities: Only models that can do all of these: `chat`, `code`, `vision`, `tools`, `json`,
            `reasoning`, `streaming`.
        min_context_tokens: Only models whose context holds at least this many tokens, of prompt and answer
            together. Default 0: any.
        estimated_input_tokens: The expected prompt, in tokens. Given with or without the expected answer, costs
            are compared for this request instead of for a million tokens each way.
        estimated_output_tokens: The expected answer, in tokens.
        user_id: UUID of the user to route for: required from the role service; else absent, or the caller's
            own.
        explain: Whether the answer has an explanation. Default false.
        """
        request = RouteRequest(
            power_level=power_level,
            task_type=task_type,
            fallback_count=fallback_count,
            required_capabilities=required_capabilities,
            min_context_tokens=min_context_tokens,
            estimated_input_tokens=estimated_input_tokens,
            estimated_output_tokens=estimated_output_tokens,
            user_id=user_id,
            explain=explain,
        )
        return self.Route(request, timeout=timeout, metadata=headers)

    def get_decision(
        self, decision_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Decision:
        """Returns a decision of the last 30 days with the fate of every model of the catalogue: scored how, or
        excluded why.

        A decision can be read a moment after it was made.

        For every user, their own; for the roles admin and service, everyone's. Errors: INVALID_FIELD;
        RESOURCE_NOT_FOUND when there is no such decision or it is another user's; UNAUTHENTICATED; UNAVAILABLE;
        DEADLINE_EXCEEDED.

        decision_id: UUID of the decision, from the path.
        """
        request = GetDecisionRequest(decision_id=decision_id)
        return self.GetDecision(request, timeout=timeout, metadata=headers)


class AsyncRoutingService:
    """Decides which model of which provider to use."""

    def __init__(self, channel: AsyncChannel) -> None:
        self.Route = channel.unary(_SERVICE + "Route", RouteRequest, RouteResponse)
        """As route, with the messages of the protos."""
        self.GetDecision = channel.unary(_SERVICE + "GetDecision", GetDecisionRequest, Decision)
        """As get_decision, with the messages of the protos."""

    async def route(
        self,
        *,
        power_level: PowerLevel.ValueType = PowerLevel.POWER_LEVEL_UNSPECIFIED,
        task_type: str = "",
        fallback_count: int | None = None,
        required_capabilities: Iterable[str] = (),
        min_context_tokens: int = 0,
        estimated_input_tokens: int = 0,
        estimated_output_tokens: int = 0,
        user_id: str = "",
        explain: bool = False,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> RouteResponse:
        """Returns the best model for a request, and what to fall back to.

        The same request over the same catalogue and settings gives the same answer on every replica.

        For every user, for themselves; the role service names the user it asks for. Errors: INVALID_FIELD;
        NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED when the month's budget is used up and the user's settings say
        `reject`; ROLE_REQUIRED when a user names another user; UNAUTHENTICATED; UNAVAILABLE; DEADLINE_EXCEEDED.

        power_level: Default: the user's preferred power level.
        task_type: What the request is about, for instance `chat`, at most 64 characters. Noted, and known to
            the routing rules; it changes no choice by itself.
        fallback_count: The most fallbacks in the answer, 1 to 5. Default 3.
        required_capabilities: Only models that can do all of these: `chat`, `code`, `vision`, `tools`, `json`,
            `reasoning`, `streaming`.
        min_context_tokens: Only models whose context holds at least this many tokens, of prompt and answer
            together. Default 0: any.
        estimated_input_tokens: The expected prompt, in tokens. Given with or without the expected answer, costs
            are compared for this request instead of for a million tokens each way.
        estimated_output_tokens: The expected answer, in tokens.
        user_id: UUID of the user to route for: required from the role service; else absent, or the caller's
            own.
        explain: Whether the answer has an explanation. Default false.
        """
        request = RouteRequest(
            power_level=power_level,
            task_type=task_type,
            fallback_count=fallback_count,
            required_capabilities=required_capabilities,
            min_context_tokens=min_context_tokens,
            estimated_input_tokens=estimated_input_tokens,
            estimated_output_tokens=estimated_output_tokens,
            user_id=user_id,
            explain=explain,
        )
        return await self.Route(request, timeout=timeout, metadata=headers)

    async def get_decision(
        self, decision_id: str, *, timeout: float | None = None, headers: Headers | None = None
    ) -> Decision:
        """Returns a decision of the last 30 days with the fate of every model of the catalogue: scored how, or
        excluded why.

        A decision can be read a moment after it was made.

        For every user, their own; for the roles admin and service, everyone's. Errors: INVALID_FIELD;
        RESOURCE_NOT_FOUND when there is no such decision or it is another user's; UNAUTHENTICATED; UNAVAILABLE;
        DEADLINE_EXCEEDED.

        decision_id: UUID of the decision, from the path.
        """
        request = GetDecisionRequest(decision_id=decision_id)
        return await self.GetDecision(request, timeout=timeout, metadata=headers)
