"""route_and_call of llmrouter's Python client through the gateway, as its README shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import OpenAI

from gateway import refusals
from gateway.answers import OK
from gateway.openai_client import url
from llmrouter import BALANCED, AllAttemptsFailed, AsyncClient, Attempt, Client, Routed, RouteRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.chat_stack import ChatStack, World
    from llmrouter_server.runtime.dev_identity import RoleName

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
CONTEXT = 900_000_000
"""Larger than any other model's."""


@pytest.fixture
async def request_for(chat: ChatStack, world: World) -> AsyncIterator[RouteRequest]:
    """What is answered by a model of A, then by one of B, both of this world alone."""
    async with AsyncClient(chat.stack.grpc_address, token=chat.stack.identity.mint("admin")) as admin:
        made = [
            await admin.models.create_model(
                provider_id=str(world.ids[letter]),
                model_name=f"{letter.lower()}-{world.model}",
                power_level=BALANCED,
                quality_score=quality_score,
                max_context_tokens=CONTEXT,
                capabilities=["chat", "streaming"],
            )
            for letter, quality_score in (("A", 9.0), ("B", 5.0))
        ]
        yield RouteRequest(power_level=BALANCED, min_context_tokens=CONTEXT, fallback_count=1)
        for model in made:
            await admin.models.disable_model(model.model_id)


def example() -> str:
    """Return the README's program for the gateway."""
    blocks = README.read_text(encoding="utf-8").split("```python\n")
    [block] = [block.partition("```")[0] for block in blocks if 'gateway="' in block]
    return block


async def routed_as(role: RoleName, chat: ChatStack, world: World, asked: RouteRequest) -> Routed[Any]:
    """Run the README's program, as the world's user or as a service on its behalf."""
    names: dict[str, Any] = {"Client": Client, "OpenAI": OpenAI, "request": RouteRequest()}
    names["request"].CopyFrom(asked)
    names["TOKEN"] = world.user.token if role == "user" else chat.stack.identity.mint(role)
    names["request"].user_id = "" if role == "user" else str(world.user.id)
    program = (
        example().replace("127.0.0.1:50051", chat.stack.grpc_address).replace("http://127.0.0.1:8080/v1", url(chat))
    )
    assert str(url(chat)) in program
    await asyncio.to_thread(exec, program, names)
    routed: Routed[Any] = names["routed"]
    return routed


@pytest.mark.parametrize("role", ["user", "service"])
async def test_the_gateway_carries_it_out_and_records_it(
    chat: ChatStack, world: World, request_for: RouteRequest, role: RoleName
) -> None:
    routed = await routed_as(role, chat, world, request_for)
    assert routed.answer.choices[0].message.content == OK.text
    assert (routed.attempt.number, routed.attempt.model_name) == (1, f"a-{world.model}")
    assert (routed.cost_usd, routed.unreported) == (None, ())
    [seen] = world.a.chats
    assert seen.headers["authorization"] == f"Bearer {world.keys['A']}"
    records = await records_of(chat, world, 1)
    assert [(each.model_name, each.input_tokens) for each in records] == [(f"a-{world.model}", OK.prompt_tokens)]


async def test_a_model_whose_providers_fail_is_replaced_by_the_decisions_next(
    chat: ChatStack, world: World, request_for: RouteRequest
) -> None:
    world.a.behave(refusals.rate_limited())
    routed = await routed_as("user", chat, world, request_for)
    assert (routed.attempt.number, routed.attempt.model_name) == (2, f"b-{world.model}")
    assert [failed.attempt.model_name for failed in routed.failures] == [f"a-{world.model}"]
    assert len(await records_of(chat, world, 2)) == 2


async def test_what_would_be_the_same_for_every_model_is_raised_as_it_is(
    chat: ChatStack, world: World, request_for: RouteRequest
) -> None:
    """A gateway that nobody serves, then one where all models fail."""

    def call(attempt: Attempt) -> Any:
        raise ConnectionError(attempt.base_url)

    def wait(gateway: str) -> None:
        with Client(chat.stack.grpc_address, token=world.user.token) as client:
            client.route_and_call(call, request_for, gateway=gateway)

    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:1/v1"):
        await asyncio.to_thread(wait, "http://127.0.0.1:1/v1")
    for provider in world.providers.values():
        provider.behave(refusals.rate_limited())
    with pytest.raises(AllAttemptsFailed) as caught:
        await routed_as("user", chat, world, request_for)
    assert [getattr(failed.error, "code", None) for failed in caught.value.failures] == ["providers_rate_limited"] * 2


async def records_of(chat: ChatStack, world: World, number: int) -> list[Any]:
    """Wait until so many attempts of the world's user are recorded."""
    async with AsyncClient(chat.stack.grpc_address, token=world.user.token) as user, asyncio.timeout(20):
        while len(records := [each async for each in user.usage.list_usage_records()]) < number:
            await asyncio.sleep(0.05)
    return records
