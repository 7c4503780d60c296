"""The official client for Python against the gateway: base URL and token are all that its users change."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Literal

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

import http_json
from gateway import answers, faults
from gateway.answers import OK, Answer
from gateway.behaviour import ok
from gateway.openai_client import ARGUMENTS, CALL, HELLO, PNG, TOOL, calls_a_tool, settings, url
from gateway.provider_exchange import TELLTALES
from gateway.refusals import status

if TYPE_CHECKING:
    from gateway.chat_stack import ChatStack, World


class Weather(pydantic.BaseModel):
    city: str
    mood: Literal["sunny", "grey"]


def add_best_model(chat: ChatStack, world: World, name: str, level: str, quality_score: float) -> None:
    """Add a model to A that is better than all of its level that other tests have added."""
    made = {
        "provider_id": str(world.ids["A"]), "model_name": name, "power_level": level, "quality_score": quality_score,
        "input_cost_per_1m": 0.0001, "output_cost_per_1m": 0.0001, "avg_latency_ms": 1,
        "max_context_tokens": 9000, "capabilities": ["chat", "streaming"],
    }  # fmt: skip
    token = chat.stack.identity.mint("admin")
    answer = http_json.call("POST", f"{chat.stack.base_url}/models", token=token, body=made)
    assert answer.status == 201, answer


async def test_a_whole_answer(client: AsyncOpenAI, world: World, chat: ChatStack) -> None:
    answer = await client.chat.completions.create(model=world.model, messages=HELLO, temperature=0.5, max_tokens=50)
    assert answer.choices[0].message.content == OK.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == world.model
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (OK.prompt_tokens, OK.completion_tokens)
    assert answer._request_id
    assert answer._request_id != dict(TELLTALES)["x-request-id"]
    [seen] = world.a.chats
    assert seen.body == {
        "model": world.model,
        "messages": HELLO,
        "temperature": 0.5,
        "max_completion_tokens": 50,
    }
    assert seen.headers["authorization"] == f"Bearer {world.keys['A']}"
    [recorded] = await chat.recorded(world)
    assert (recorded.at, recorded.input_tokens, recorded.output_tokens) == ("A", OK.prompt_tokens, OK.completion_tokens)


async def test_the_headers_say_who_served(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(status(500))
    raw = await client.chat.completions.with_raw_response.create(model=world.model, messages=HELLO)
    assert (await _content(raw)) == OK.text
    ours = {name: value for name, value in raw.headers.items() if name.startswith("x-llmrouter-")}
    uuid.UUID(ours.pop("x-llmrouter-decision-id"))
    assert ours == {
        "x-llmrouter-provider": f"B of {world.model}",
        "x-llmrouter-model": world.model,
        "x-llmrouter-attempts": "3",
    }
    assert not ({name for name, _ in TELLTALES} - {"x-request-id"}) & set(raw.headers)


async def _content(raw: Any) -> str:
    parsed = raw.parse()
    answer = await parsed if hasattr(parsed, "__await__") else parsed
    return str(answer.choices[0].message.content)


async def test_a_stream(client: AsyncOpenAI, world: World) -> None:
    stream = await client.chat.completions.create(model=world.model, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == OK.text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not [chunk for chunk in chunks if chunk.usage]
    assert stream.response.headers["x-llmrouter-provider"] == f"A of {world.model}"


async def test_the_usage_of_a_stream_comes_when_it_is_asked_for(client: AsyncOpenAI, world: World) -> None:
    stream = await client.chat.completions.create(
        model=world.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *others, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (OK.prompt_tokens, OK.completion_tokens)
    assert not [chunk for chunk in others if chunk.usage]


async def test_the_synchronous_client(chat: ChatStack, world: World) -> None:
    def use() -> list[str]:
        with OpenAI(base_url=url(chat), api_key=world.user.token) as client:
            answer = client.chat.completions.create(model=world.model, messages=HELLO)
            stream = client.chat.completions.create(model=world.model, messages=HELLO, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            with client.chat.completions.stream(model=world.model, messages=HELLO) as events:
                final = events.get_final_completion()
            assert world.model in [model.id for model in client.models.list()]
            return [answer.choices[0].message.content or "", streamed, final.choices[0].message.content or ""]

    assert await asyncio.to_thread(use) == [OK.text] * 3


async def test_a_tool_is_called(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(calls_a_tool(), ok())
    asked: Any = {"model": world.model, "messages": HELLO, "tools": [TOOL], "tool_choice": "auto"}
    first = await client.chat.completions.create(**asked)
    [call] = first.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "get_weather", ARGUMENTS)
    told = [*HELLO, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = await client.chat.completions.create(**asked | {"messages": told})
    assert second.choices[0].message.content == OK.text
    one, two = world.a.chats
    assert one.body == {"model": world.model, "messages": HELLO, "tools": [TOOL], "tool_choice": "auto"}
    assert two.body["messages"][1]["tool_calls"] == [CALL]
    assert two.body["messages"][2] == told[2]


async def test_a_streamed_call_of_a_tool(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(calls_a_tool())
    tools: Any = [TOOL]
    async with client.chat.completions.stream(model=world.model, messages=HELLO, tools=tools) as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", ARGUMENTS)
    assert "tool_calls.function.arguments.delta" in kinds
    assert world.a.chats[0].body["tools"] == [TOOL]


async def test_images_go_through_unchanged(client: AsyncOpenAI, world: World) -> None:
    messages: Any = [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": 'What is „this“? \u2028 \U0001d518 "\\'},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://images.test/cat.png"}},
            ],
        },
    ]
    answer = await client.chat.completions.create(model=world.model, messages=messages)
    assert answer.choices[0].message.content == OK.text
    assert world.a.chats[0].body["messages"] == messages


async def test_structured_answers(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(ok(Answer(content='{"city": "Zürich", "mood": "sunny"}')))
    parsed = await client.chat.completions.parse(model=world.model, messages=HELLO, response_format=Weather)
    assert parsed.choices[0].message.parsed == Weather(city="Zürich", mood="sunny")
    sent = world.a.chats[0].body["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"]["required"] == ["city", "mood"]


async def test_what_the_gateway_does_not_know_goes_to_the_provider(client: AsyncOpenAI, world: World) -> None:
    more = {"seed": 7, "logit_bias": {"50256": -100}, "top_k": 40, "nested": {"deep": [1, None, 1e-7]}}
    await client.chat.completions.create(model=world.model, messages=HELLO, extra_body=more)
    assert world.a.chats[0].body == {"model": world.model, "messages": HELLO, **more}


async def test_the_list_of_models(client: AsyncOpenAI, world: World) -> None:
    listed = {model.id: model for model in (await client.models.list()).data}
    assert {"auto", "eco", "balanced", "precision", world.model} <= set(listed)
    one = await client.models.retrieve(world.model)
    assert (one.id, one.object) == (world.model, "model")
    assert one == listed[world.model]
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-of-nobody")


async def test_any_choice_of_a_model(chat: ChatStack, client: AsyncOpenAI, world: World) -> None:
    names = {level: f"{world.model}-{level}" for level in ("eco", "balanced", "precision")}
    for level, name in names.items():
        add_best_model(chat, world, name, level.upper(), quality_score=9)
    for level, name in names.items():
        answer = await client.chat.completions.create(model=level, messages=HELLO)
        assert answer.model == name
    settings(chat, world, preferred_power_level="PRECISION")
    automatic = await client.chat.completions.create(model="auto", messages=HELLO)
    assert automatic.model == names["precision"]
    named = await client.chat.completions.create(model=names["eco"], messages=HELLO)
    assert named.model == names["eco"]


async def test_another_name_stands_in_only_when_the_client_allows_it(
    chat: ChatStack, client: AsyncOpenAI, world: World
) -> None:
    wanted, next_best = f"{world.model}-wanted", f"{world.model}-next"
    add_best_model(chat, world, wanted, "BALANCED", quality_score=10)
    add_best_model(chat, world, next_best, "BALANCED", quality_score=9.9)
    world.a.behave_for(wanted, status(404))
    with pytest.raises(openai.InternalServerError) as failed:
        await client.with_options(max_retries=0).chat.completions.create(model=wanted, messages=HELLO)
    assert failed.value.code == "providers_failed"
    allowed = await client.chat.completions.create(model=wanted, messages=HELLO, extra_body={"allow_fallbacks": True})
    assert allowed.model == next_best
    assert not [seen for seen in world.a.chats if "allow_fallbacks" in seen.body]


async def test_a_service_acts_for_a_user(chat: ChatStack, world: World) -> None:
    token, header = chat.stack.identity.mint("service"), "x-llmrouter-user-id"
    async with AsyncOpenAI(base_url=url(chat), api_key=token, default_headers={header: str(world.user.id)}) as service:
        answer = await service.chat.completions.create(model=world.model, messages=HELLO)
        assert answer.choices[0].message.content == OK.text
        assert world.model in [model.id async for model in service.models.list()]
    assert len(await chat.recorded(world)) == 1
    assert not {header, "cookie"} & set(world.a.chats[0].headers)
    async with AsyncOpenAI(base_url=url(chat), api_key=token) as service:
        with pytest.raises(openai.BadRequestError) as refused:
            await service.chat.completions.create(model=world.model, messages=HELLO)
    assert refused.value.param == "user_id"


async def test_a_stream_without_done_is_whole(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(faults.no_done())
    stream = await client.chat.completions.create(model=world.model, messages=HELLO, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == OK.text


async def test_many_at_once(client: AsyncOpenAI, world: World) -> None:
    async def one(number: int) -> bool:
        stream = await client.chat.completions.create(model=world.model, messages=HELLO, stream=True, seed=number)
        return answers.is_unharmed("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))

    world.a.behave(ok(answers.checked(100)))
    assert await asyncio.gather(*map(one, range(20))) == [True] * 20
