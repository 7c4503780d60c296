"""An answer that route_and_call has is its caller's, whatever comes of the record of its usage."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from llmrouter import ECO, AsyncClient, Client, Routed, RouteRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client_world import OwnServer

ANSWER = {"text": "precious", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


class SignedOut(Exception):  # noqa: N818 - the test reads as a sentence
    """As of a program's own identity service."""


async def walk(
    router: OwnServer, answer: Mapping[str, Any], *, is_async: bool, signs_out: bool = False, **options: Any
) -> tuple[Routed[Mapping[str, Any]], Any]:
    """Let a service route and call for a new user; return what came of it, and the user's one record, if any."""
    user_id, token, is_out = uuid.uuid4(), router.identity.mint("service"), False
    request = RouteRequest(power_level=ECO, user_id=str(user_id))

    def give_token() -> str:
        if is_out:
            raise SignedOut
        return token

    def call(_: object) -> Mapping[str, Any]:
        nonlocal is_out
        is_out = signs_out
        return answer

    async def call_async(attempt: object) -> Mapping[str, Any]:
        return call(attempt)

    def wait() -> Routed[Mapping[str, Any]]:
        with Client(router.address, token=give_token) as service:
            return service.route_and_call(call, request, **options)

    try:
        if is_async:
            async with AsyncClient(router.address, token=give_token) as service:
                routed = await service.route_and_call(call_async, request, **options)
        else:
            routed = await asyncio.to_thread(wait)
    finally:
        async with router.client("user", user_id) as user:
            records = [record async for record in user.usage.list_usage_records()]
            assert [record.is_estimated for record in records] == ([] if signs_out else [answer is not ANSWER])
    return routed, records


@pytest.mark.parametrize("is_async", [True, False])
async def test_when_there_is_no_token_for_the_record_the_answer_is_still_there(
    router: OwnServer, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    routed, _ = await walk(router, ANSWER, is_async=is_async, signs_out=True)
    assert routed.answer is ANSWER
    [lost] = routed.unreported
    assert isinstance(lost.error, SignedOut)
    assert (lost.request.request_id, lost.request.input_tokens) == (routed.attempt.request_id, 7)
    assert "was not recorded: SignedOut" in caplog.text


@pytest.mark.parametrize("told", [-1, 2_000_000_000, 2**40])
async def test_a_provider_that_tells_impossible_tokens_tells_none(router: OwnServer, told: int) -> None:
    answer = {"usage": {"prompt_tokens": told, "completion_tokens": 3}}
    routed, _ = await walk(router, answer, is_async=True)
    assert routed.answer is answer
    assert routed.unreported == ()


@pytest.mark.parametrize("usage_of", [lambda _: Usage(input_tokens=-1, output_tokens=1), lambda _: 1 // 0])
async def test_a_programs_wrong_count_is_told_after_an_estimate_is_recorded(
    router: OwnServer, usage_of: Callable[[object], Usage]
) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        await walk(router, {}, is_async=True, usage_of=usage_of)
