from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway import refusals
from gateway.chat_client import Reply
from gateway.chat_stack import PATIENCE_S, REST_S
from gateway.refusals import status
from gateway.test_ruled_chat import add_rule

if TYPE_CHECKING:
    from gateway.chat_stack import ChatStack, World

# What the provider gets

TOOLS = """[{"type":"function","function":{"name":"f","parameters":{"properties":{"n":{"const":1.0}}}}}]"""
MESSAGES = """[ {"role":"system","content":"\\u00e9 \\ud83d\\ude42 é 🙂\\/"},
 {"role":"user","content":[{"type":"text","text":"look"},
  {"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}}]},
 {"role":"assistant","content":null,"tool_calls":[
  {"id":"c","type":"function","function":{"name":"f","arguments":"{\\"n\\": 1e2}"}}]},
 {"role":"tool","tool_call_id":"c","content":"12345678901234567890"} ]"""
"""With what a careless copy would write in another way."""


@pytest.mark.parametrize("chunked", [False, True], ids=["by its length", "in chunks"])
async def test_messages_and_tools_arrive_as_they_were_sent_also_at_the_next_provider(
    chat: ChatStack, world: World, chunked: bool
) -> None:
    world.a.behave(status(500))
    rest = (
        f'"messages":{MESSAGES}, "tools":{TOOLS},"temperature":1e0,"seed":12345678901234567890,"x_new":{{"a":[null]}}'
    )
    body = f'{{"max_tokens":77,{rest},"model":"{world.model}"}}'.encode()
    reply = await chat.post(world, body, chunked=chunked)
    assert reply.headers["x-llmrouter-attempts"] == "3"
    for seen in (*world.a.chats, *world.b.chats):
        assert f'"messages":{MESSAGES}'.encode() in seen.raw
        assert f'"tools":{TOOLS}'.encode() in seen.raw
        ours = {"model": world.model, "max_completion_tokens": 77}
        assert seen.body == json.loads(f"{{{rest}}}") | ours
        assert seen.headers["content-length"] == str(len(seen.raw))
    await chat.recorded(world)


async def test_every_attempt_carries_the_requests_own_id_and_nothing_of_the_client(
    chat: ChatStack, world: World
) -> None:
    world.a.behave(status(500))
    body = json.dumps({"model": world.model, "messages": [{"role": "user", "content": "x"}]}).encode()
    headers = {"x-request-id": "mine-1", "cookie": "session=made-up", "user-agent": "made-up", "x-api-key": "made-up"}
    reply = await chat.post(world, body, **headers, **{"openai-organization": "made-up"})
    assert reply.headers["x-request-id"] == "mine-1"
    seen = [*world.a.chats, *world.b.chats]
    assert len({each.headers["x-request-id"] for each in seen}) == 1
    for each in seen:
        assert each.headers.keys() <= {
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "x-request-id",
        }
        assert each.headers["user-agent"] == "llmrouter"
    await chat.recorded(world)


async def test_the_journal_names_the_providers_that_were_tried_and_no_others(chat: ChatStack, world: World) -> None:
    world.a.behave(status(500))
    body = json.dumps({"model": world.model, "messages": [{"role": "user", "content": "x"}]}).encode()
    decision_id = (await chat.post(world, body)).headers["x-llmrouter-decision-id"]
    await chat.recorded(world)
    async with asyncio.timeout(PATIENCE_S):
        while decision_id not in (written := chat.stack.journal.read_text(encoding="utf-8").rpartition("\n")[0]):
            await asyncio.sleep(0.05)  # Envoy writes it every 0.2 s
    [line] = [json.loads(each) for each in written.splitlines() if decision_id in each]
    assert [each["provider_id"] for each in line["plan"]["candidates"]] == [str(world.ids[name]) for name in "AB"]


# Keys


async def test_an_own_key_goes_to_its_provider_alone_and_is_marked_when_that_refuses_it(
    chat: ChatStack, world: World
) -> None:
    own = "sk-made-up-own-0123456789"
    await chat.give_key(world, "A", own)
    world.a.behave(refusals.unauthorized())
    reply = await chat.ask(world)
    assert [seen.headers["authorization"] for seen in world.a.chats] == [f"Bearer {own}"]
    assert [seen.headers["authorization"] for seen in world.b.chats] == [f"Bearer {world.keys['B']}"]
    assert own.encode() not in reply.body + repr(reply.headers).encode()
    recorded = await chat.recorded(world)
    assert [(each.at, each.payer, each.failure) for each in recorded] == [
        ("A", "USER_KEY", "UNAUTHORIZED"),
        ("B", "PLATFORM", None),
    ]
    assert await chat.is_key_refused(world, "A")


async def test_a_key_that_a_refusal_quotes_does_not_reach_the_client(chat: ChatStack, world: World) -> None:
    key = world.keys["A"]
    world.a.behave(status(400, {"error": {"message": f"bad request with {key} and again {key}", "code": "bad"}}))
    reply = await chat.ask(world)
    assert (reply.status, reply.error["code"]) == (400, "bad")
    assert reply.error["message"] == "bad request with [redacted] and again [redacted]"


# One provider with several models


async def test_a_provider_gets_one_second_try_however_many_of_its_models_are_in_the_plan(
    chat: ChatStack, world: World
) -> None:
    await chat.add_precise(world, "A", 3)
    await add_rule(chat, world, "true", world.ids["A"])  # other tests have added precise models too
    world.a.behave(status(500))
    reply = await chat.ask(world, model="precision")
    assert (reply.status, reply.error["code"]) == (502, "providers_failed")
    asked = [seen.body["model"].removeprefix(f"{world.model}-precise-") for seen in world.a.chats]
    assert (len(asked), asked[0]) == (4, asked[1])
    assert set(asked) == {"0", "1", "2"}
    await chat.recorded(world)


# Down for a while


async def test_a_provider_that_was_down_for_a_moment_serves_the_next_request(chat: ChatStack, world: World) -> None:
    await world.a.go_away()
    assert (await chat.ask(world)).headers["x-llmrouter-provider"].startswith("B")
    await chat.recorded(world)
    await world.a.come_back()
    assert (await chat.ask(world)).headers["x-llmrouter-provider"].startswith("A")


async def test_a_provider_that_stays_down_is_left_alone(chat: ChatStack) -> None:
    before, reply = Reply(), Reply()
    while not reply.headers or reply.decided_at - before.decided_at >= REST_S:  # later, it may be the one that tries
        world = await chat.new_world()
        await world.a.go_away()
        for number in (1, 2):
            before = await chat.ask(world)
            await chat.recorded(world, number)
        reply = await chat.ask(world)
    assert (reply.headers["x-llmrouter-provider"][0], reply.headers["x-llmrouter-attempts"]) == ("B", "1")
