"""Chat requests obey the operator's routing rules, as Route does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import http_json
from gateway.behaviour import ok
from gateway.refusals import rate_limited

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.chat_stack import ChatStack, World


async def add_rule(chat: ChatStack, world: World, condition: str, *provider_ids: UUID) -> None:
    """Let only these providers through, for the world's user."""
    body: Any = {
        "rule_name": f"{condition} in {world.model}",
        "condition": f'user_id == "{world.user.id}" && {condition}',
        "provider_ids": [str(each) for each in provider_ids],
    }
    admin = chat.stack.identity.mint("admin")
    answer = http_json.call("POST", f"{chat.stack.base_url}/rules", token=admin, body=body)
    assert answer.status == 201, answer


async def test_only_the_providers_that_the_rule_lets_through_are_tried(chat: ChatStack, world: World) -> None:
    await add_rule(chat, world, f'model == "{world.model}"', world.ids["B"], world.ids["C"])
    world.b.behave(rate_limited())
    world.c.behave(ok())
    assert (await chat.ask(world)).status == 200
    assert [letter for _, letter in world.order()] == ["B", "C"]
    assert [attempt.at for attempt in await chat.recorded(world)] == ["B", "C"]


async def test_a_rule_about_the_size_of_the_answer_holds_for_requests_of_that_size(
    chat: ChatStack, world: World
) -> None:
    await add_rule(chat, world, "output_tokens > 1000", world.ids["C"])
    for each in world.providers.values():
        each.behave(ok())
    await chat.ask(world, max_tokens=1000)
    await chat.ask(world, max_tokens=1001)
    assert [letter for _, letter in world.order()] == ["A", "C"]


async def test_when_the_rule_leaves_nobody_the_client_is_told_so(chat: ChatStack, world: World) -> None:
    await add_rule(chat, world, "true", (await chat.new_world()).ids["A"])
    reply = await chat.ask(world)
    assert reply.status == 404
    assert "RULE_PROVIDER 3" in reply.json["error"]["message"]
    assert world.order() == []
