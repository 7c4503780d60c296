"""Route from bytes to bytes: what is remembered of a request, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.message import DecodeError

from llmrouter.v2 import power_level_pb2
from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse
from llmrouter_server.errors import DomainError
from llmrouter_server.routing.service import MOST_KEPT_BYTES, RoutingService
from llmrouter_server.runtime import interceptor
from llmrouter_server.runtime.auth import Caller, Role
from unit.routing_world import USER, World

if TYPE_CHECKING:
    from uuid import UUID

    from llmrouter_server.routing.router import Asked, Routed

OTHER = USER.__class__(int=2)


class Asking(World):
    """A service over a router that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Asked] = []
        self._router = self.router()
        self.service = RoutingService(cast("Any", self), cast("Any", None), cast("Any", None), cast("Any", None))

    async def route(self, asked: Asked) -> Routed:  # type: ignore[override] # as the router does
        self.seen.append(asked)
        return await self._router.route(asked)

    async def call(self, user: UUID = USER, roles: frozenset[Role] = frozenset({Role.USER}), **fields: Any) -> bytes:
        interceptor._caller.set(Caller(user, roles))
        sent = RouteRequest(power_level=power_level_pb2.ECO, **fields).SerializeToString()
        method = cast("Any", self.service.Route)
        return bytes(await method(method.read(sent), None))


async def test_the_same_bytes_of_the_same_user_are_read_once() -> None:
    asking = Asking()
    await asking.call(min_context_tokens=7)
    await asking.call(min_context_tokens=7)
    first, second = asking.seen
    assert first is second


async def test_the_same_bytes_of_another_user_are_another_request() -> None:
    asking = Asking()
    for user in (USER, OTHER):
        await asking.call(user)
    assert [asked.user_id for asked in asking.seen] == [USER, OTHER]


async def test_a_remembered_request_still_needs_the_role() -> None:
    asking = Asking()
    await asking.call(roles=frozenset({Role.SERVICE}), user_id=str(OTHER))
    with pytest.raises(DomainError) as raised:
        await asking.call(user_id=str(OTHER))
    assert raised.value.reason == "ROLE_REQUIRED"


async def test_a_wrong_request_is_wrong_every_time() -> None:
    asking = Asking()
    for _ in range(2):
        with pytest.raises(DomainError) as raised:
            await asking.call(fallback_count=9)
        assert raised.value.reason == "INVALID_FIELD"
    with pytest.raises(DecodeError):
        cast("Any", asking.service.Route).read(b"\xff")


async def test_a_long_request_is_not_kept() -> None:
    asking = Asking()
    for _ in range(2):
        await asking.call(required_capabilities=["chat"] * MOST_KEPT_BYTES)
    first, second = asking.seen
    assert first is not second
    assert first == second


async def test_the_answer_has_an_id_of_its_own_and_else_the_same() -> None:
    asking = Asking()
    first, second = [RouteResponse.FromString(await asking.call()) for _ in range(2)]
    assert [first.decision_id, second.decision_id] == [str(record.id) for record in asking.kept]
    first.ClearField("decision_id")
    second.ClearField("decision_id")
    assert first == second
    assert first.primary.model_name == "Qwen/Qwen2.5-32B-Instruct"
    assert first.total_options == 1 + len(first.fallbacks)


async def test_an_explanation_is_given_to_whom_asks_for_it() -> None:
    asking = Asking()
    plain, explained = [RouteResponse.FromString(await asking.call(explain=each)) for each in (False, True)]
    assert not plain.HasField("explanation")
    assert explained.explanation.decision_id == explained.decision_id
    assert len(explained.explanation.models) == 21
