"""What goes wrong, as the official client for Python tells its users."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import openai
import pytest
from openai import AsyncOpenAI

from gateway import faults, refusals, sse_faults
from gateway.answers import OK
from gateway.openai_client import HELLO, settings, url
from gateway.refusals import status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx2

    from gateway.behaviour import Fault
    from gateway.chat_stack import ChatStack, World


def counting() -> tuple[httpx2.AsyncClient, list[httpx2.Request]]:
    """Return what the client may use to send, and the requests that it has sent."""
    sent: list[httpx2.Request] = []

    async def note(request: httpx2.Request) -> None:
        sent.append(request)

    return openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]}), sent


async def text_of(client: AsyncOpenAI, world: World, received: list[str]) -> None:
    """Ask for a stream, and add each piece of its text."""
    async for chunk in await client.chat.completions.create(model=world.model, messages=HELLO, stream=True):
        received += [choice.delta.content or "" for choice in chunk.choices]


async def test_a_field_that_is_wrong_is_named(client: AsyncOpenAI, world: World) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=world.model, messages=HELLO, max_tokens=-1)
    assert (refused.value.code, refused.value.param, refused.value.type) == (
        "invalid_field",
        "max_tokens",
        "invalid_request_error",
    )
    assert world.a.chats == []


async def test_what_the_provider_refuses_comes_as_the_provider_wrote_it(client: AsyncOpenAI, world: World) -> None:
    world.a.behave(refusals.bad_request())
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=world.model, messages=HELLO, temperature=2)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "temperature")
    assert [len(each.chats) for each in world.providers.values()] == [1, 0, 0]


async def test_a_prompt_that_no_model_takes(client: AsyncOpenAI, world: World) -> None:
    long = [{"role": "user", "content": "word " * 200_000}]
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model=world.model, messages=long)  # type: ignore[arg-type]
    assert refused.value.code == "context_length_exceeded"


async def test_a_wrong_token(chat: ChatStack) -> None:
    async with AsyncOpenAI(base_url=url(chat), api_key="sk-somebody-elses") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.chat.completions.create(model="auto", messages=HELLO)
        assert (refused.value.code, refused.value.type) == ("unauthenticated", "authentication_error")
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_another_user_without_the_role(client: AsyncOpenAI, world: World) -> None:
    other = {"x-llmrouter-user-id": str(uuid.uuid4())}
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await client.chat.completions.create(model=world.model, messages=HELLO, extra_headers=other)
    assert refused.value.code == "role_required"


async def test_a_model_that_there_is_not(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-of-nobody", messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_what_openai_has_and_the_gateway_has_not(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.embeddings.create(model="auto", input="x")
    assert refused.value.code == "unknown_path"
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="auto", input="x")


@pytest.mark.parametrize("policy", ["reject", "downgrade"])
async def test_a_budget_that_is_used_up_is_not_tried_again(chat: ChatStack, world: World, policy: str) -> None:
    settings(chat, world, monthly_budget_usd=0.01, on_budget_exceeded=policy)
    http_client, sent = counting()
    async with AsyncOpenAI(base_url=url(chat), api_key=world.user.token, http_client=http_client) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=world.model, messages=HELLO, max_tokens=2000)
    assert (refused.value.code, refused.value.type) == ("budget_exceeded", "insufficient_quota")
    assert len(sent) == 1
    assert world.a.chats == []


async def test_what_no_provider_answers(client: AsyncOpenAI, world: World) -> None:
    impatient = client.with_options(max_retries=0)
    for each in world.providers.values():
        each.behave(status(500))
    with pytest.raises(openai.InternalServerError) as failed:
        await impatient.chat.completions.create(model=world.model, messages=HELLO)
    assert (failed.value.status_code, failed.value.code) == (502, "providers_failed")
    assert f"A of {world.model}" in failed.value.message
    assert failed.value.response.headers["x-llmrouter-attempts"] == "6"

    for each in world.providers.values():
        each.behave(refusals.rate_limited("7"))
    with pytest.raises(openai.RateLimitError) as limited:
        await impatient.chat.completions.create(model=world.model, messages=HELLO, stream=True)
    assert limited.value.code == "providers_rate_limited"
    assert limited.value.response.headers["retry-after"] == "7"


BROKEN: Sequence[Fault] = (
    faults.cut(3),
    faults.reset_after(3),
    faults.bad_chunk(),
    faults.cut_at_eof(3),
    *(sse_faults.error_event(style=style) for style in sse_faults.ErrorEvent),
)


@pytest.mark.parametrize("fault", BROKEN, ids=str)
async def test_a_broken_stream_raises(client: AsyncOpenAI, world: World, fault: Fault) -> None:
    await assert_raises(client, world, fault)


async def test_a_stream_that_says_nothing_more_raises(impatient: ChatStack) -> None:
    world = await impatient.new_world()
    async with AsyncOpenAI(base_url=url(impatient), api_key=world.user.token) as client:
        await assert_raises(client, world, faults.stalled(3))


async def assert_raises(client: AsyncOpenAI, world: World, fault: Fault) -> None:
    world.a.behave(fault)
    received: list[str] = []
    with pytest.raises(openai.APIError) as failed:  # a lost connection is one of these
        await text_of(client, world, received)
    assert OK.text.startswith("".join(received))
    assert "".join(received) != OK.text
    assert world.keys["A"] not in f"{failed.value!r} {failed.value.body}"
