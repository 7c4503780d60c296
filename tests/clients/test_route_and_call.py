"""route_and_call of both clients, by way of OpenAI's: a real server, and real providers that fail as they are told."""

from __future__ import annotations

import asyncio
import traceback
import uuid
from typing import TYPE_CHECKING, Any

import openai
import pytest

from gateway import behaviour, faults, refusals
from gateway.answers import OK
from llmrouter import (
    ECO,
    AllAttemptsFailed,
    Attempt,
    AttemptFailure,
    Client,
    InvalidField,
    NoEligibleModel,
    Payer,
    Routed,
    RouteRequest,
    Usage,
    UsageRecord,
    UsageStatus,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openai.types.chat import ChatCompletion

    from client_world import ClientWorld, OwnServer

HELLO: list[Any] = [{"role": "user", "content": "Say something."}]
FAILURE = AttemptFailure.Name


def open_ai(attempt: Attempt, kind: Any = openai.OpenAI) -> Any:
    key = attempt.api_key or "none"
    return kind(base_url=attempt.base_url, api_key=key, max_retries=0, default_headers=attempt.headers, timeout=60)


def chat(attempt: Attempt) -> ChatCompletion:
    with open_ai(attempt) as provider:
        answer: ChatCompletion = provider.chat.completions.create(model=attempt.model_name, messages=HELLO)
        return answer


async def chat_async(attempt: Attempt) -> ChatCompletion:
    async with open_ai(attempt, openai.AsyncOpenAI) as provider:
        answer: ChatCompletion = await provider.chat.completions.create(model=attempt.model_name, messages=HELLO)
        return answer


class Walker:
    """Calls route_and_call of one of the clients, as a service that asks for the credentials."""

    def __init__(self, router: OwnServer, *, is_async: bool) -> None:
        self.router, self.is_async = router, is_async

    async def __call__(
        self,
        world: ClientWorld,
        call: Callable[[Attempt], Any] | None = None,
        request: RouteRequest | None = None,
        **options: Any,
    ) -> Any:
        options = {"credentials": True} | options
        if self.is_async:

            async def asynchronous(attempt: Attempt) -> Any:
                return await chat_async(attempt) if call is None else call(attempt)

            async with self.router.client("service") as service:
                return await service.route_and_call(asynchronous, request or world.request, **options)

        def waiting() -> Any:
            with Client(self.router.address, token=world.service_token) as service:
                return service.route_and_call(call or chat, request or world.request, **options)

        return await asyncio.to_thread(waiting)


@pytest.fixture(params=[True, False], ids=["async", "sync"])
def walk(request: pytest.FixtureRequest, router: OwnServer) -> Walker:
    return Walker(router, is_async=request.param)


@pytest.fixture
def recorded(router: OwnServer) -> Callable[[ClientWorld], Awaitable[list[UsageRecord]]]:
    async def records(world: ClientWorld) -> list[UsageRecord]:
        async with router.client("user", uuid.UUID(world.user_id)) as user:
            return [record async for record in user.usage.list_usage_records()][::-1]

    return records


Recorded = "Callable[[ClientWorld], Awaitable[list[UsageRecord]]]"


async def test_the_first_model_answers_and_its_usage_is_recorded(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    routed: Routed[ChatCompletion] = await walk(client_world)
    assert routed.answer.choices[0].message.content == OK.text
    assert (routed.attempt.number, routed.attempt.model_name, routed.failures) == (1, "model-a", ())
    assert routed.usage == Usage(
        input_tokens=OK.prompt_tokens,
        output_tokens=OK.completion_tokens,
        cached_tokens=OK.cached_tokens,
        reasoning_tokens=OK.reasoning_tokens,
    )
    assert routed.cost_usd == pytest.approx((OK.prompt_tokens * 3 + OK.completion_tokens * 15) / 1e6)
    assert routed.unreported == ()
    [seen] = client_world.providers["A"].chats
    assert seen.headers["authorization"] == f"Bearer {client_world.keys['A']}"
    [record] = await recorded(client_world)
    assert (record.model_name, record.payer, record.status) == (
        "model-a",
        Payer.PAYER_USER_KEY,
        UsageStatus.USAGE_STATUS_SUCCESS,
    )
    assert record.decision_id == routed.attempt.decision.decision_id
    assert record.request_id == routed.attempt.request_id
    assert not record.is_estimated
    assert record.HasField("latency_ms")


async def test_who_fails_is_replaced_by_the_next_and_each_attempt_is_recorded(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    client_world.providers["A"].behave(refusals.status(500))
    client_world.providers["B"].behave(refusals.rate_limited())
    routed = await walk(client_world, request_id="order-17")
    assert (routed.attempt.number, routed.attempt.model_name) == (3, "model-c")
    assert [FAILURE(failed.failure) for failed in routed.failures] == [
        "ATTEMPT_FAILURE_SERVER_ERROR",
        "ATTEMPT_FAILURE_RATE_LIMITED",
    ]
    assert [type(failed.error) for failed in routed.failures] == [openai.InternalServerError, openai.RateLimitError]
    records = await recorded(client_world)
    assert {(each.request_id, each.model_name, each.status, FAILURE(each.failure)) for each in records} == {
        ("order-17/1", "model-a", UsageStatus.USAGE_STATUS_ERROR, "ATTEMPT_FAILURE_SERVER_ERROR"),
        ("order-17/2", "model-b", UsageStatus.USAGE_STATUS_ERROR, "ATTEMPT_FAILURE_RATE_LIMITED"),
        ("order-17/3", "model-c", UsageStatus.USAGE_STATUS_SUCCESS, "ATTEMPT_FAILURE_UNSPECIFIED"),
    }
    assert {each.error_message for each in records} == {
        "InternalServerError: status 500",
        "RateLimitError: status 429",
        "",
    }


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (refusals.unauthorized(), "UNAUTHORIZED"),
        (refusals.no_such_model(), "CALLER"),
        (refusals.no_quota(), "RATE_LIMITED"),
        (faults.reset_before_headers(), "CONNECT"),
        (faults.reset_after(2), "CONNECT"),
        *((refusals.too_long(whose), "CALLER") for whose in refusals.TOO_LONG),
    ],
    ids=str,
)
async def test_what_is_about_the_provider_goes_to_the_next(
    client_world: ClientWorld, router: OwnServer, fault: behaviour.Fault, failure: str
) -> None:
    client_world.providers["A"].behave(fault)
    routed = await Walker(router, is_async=True)(client_world)
    assert routed.attempt.model_name == "model-b"
    assert [FAILURE(failed.failure) for failed in routed.failures] == [f"ATTEMPT_FAILURE_{failure}"]


async def test_an_answer_that_does_not_come_in_time_goes_to_the_next(
    client_world: ClientWorld, router: OwnServer
) -> None:
    client_world.providers["A"].behave(faults.silent())

    def impatient(attempt: Attempt) -> ChatCompletion:
        with open_ai(attempt).with_options(timeout=0.3 if attempt.number == 1 else 30) as provider:
            answer: ChatCompletion = provider.chat.completions.create(model=attempt.model_name, messages=HELLO)
            return answer

    routed = await Walker(router, is_async=False)(client_world, impatient)
    assert routed.attempt.model_name == "model-b"
    assert [FAILURE(failed.failure) for failed in routed.failures] == ["ATTEMPT_FAILURE_TIMEOUT"]


async def test_what_is_about_the_request_is_raised_as_it_is(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    client_world.providers["A"].behave(refusals.content_filter())
    with pytest.raises(openai.BadRequestError):
        await walk(client_world)
    assert client_world.providers["B"].chats == []
    [record] = await recorded(client_world)
    assert FAILURE(record.failure) == "ATTEMPT_FAILURE_CALLER"


async def test_a_mistake_in_the_program_is_raised_as_it_is_and_is_nobodys_fault(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    def mistaken(_: Attempt) -> None:
        raise KeyError("typo")

    with pytest.raises(KeyError, match="typo"):
        await walk(client_world, mistaken)
    [record] = await recorded(client_world)
    assert (record.status, FAILURE(record.failure), record.error_message) == (
        UsageStatus.USAGE_STATUS_ERROR,
        "ATTEMPT_FAILURE_UNSPECIFIED",
        "KeyError",
    )


async def test_when_all_fail_the_exception_has_each_ones_error(client_world: ClientWorld, walk: Walker) -> None:
    for provider in client_world.providers.values():
        provider.behave(refusals.status(500))
    with pytest.raises(AllAttemptsFailed) as caught:
        await walk(client_world)
    error = caught.value
    assert [failed.attempt.model_name for failed in error.failures] == ["model-a", "model-b", "model-c"]
    assert {type(failed.error) for failed in error.failures} == {openai.InternalServerError}
    assert isinstance(error.__cause__, ExceptionGroup)
    assert list(error.__cause__.exceptions) == [failed.error for failed in error.failures]
    assert str(error).startswith("all 3 models failed: model-a of A of ")
    assert str(error).count("SERVER_ERROR (InternalServerError)") == 3
    shown = "".join(traceback.format_exception(error)) + repr(error)
    assert not [key for key in (*client_world.keys.values(), client_world.service_token) if key in shown]


async def test_nobody_else_is_asked_once_the_answer_has_begun(
    client_world: ClientWorld, router: OwnServer, recorded: Recorded
) -> None:
    client_world.providers["A"].behave(refusals.status(500))

    def begun(attempt: Attempt) -> ChatCompletion:
        attempt.commit()
        return chat(attempt)

    with pytest.raises(openai.InternalServerError):
        await Walker(router, is_async=False)(client_world, begun)
    assert client_world.providers["B"].chats == []
    assert len(await recorded(client_world)) == 1


async def test_the_program_can_judge_and_count_by_itself(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    def call(attempt: Attempt) -> str:
        if attempt.number == 1:
            raise KeyError("of a provider, this time")
        return "answer"

    routed = await walk(
        client_world,
        call,
        verdict_of=lambda _: Verdict(AttemptFailure.ATTEMPT_FAILURE_SERVER_ERROR, try_next=True),
        usage_of=lambda answer: Usage(input_tokens=7, output_tokens=len(answer), cached_tokens=2, reasoning_tokens=1),
    )
    assert routed.answer == "answer"
    records = {record.model_name: record for record in await recorded(client_world)}
    assert FAILURE(records["model-a"].failure) == "ATTEMPT_FAILURE_SERVER_ERROR"
    b = records["model-b"]
    assert (b.input_tokens, b.output_tokens, b.cached_tokens, b.reasoning_tokens) == (7, 6, 2, 1)


async def test_usage_that_an_answer_does_not_tell_is_recorded_as_an_estimate(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    routed = await walk(client_world, lambda _: "just text")
    assert (routed.usage.input_tokens, routed.usage.is_estimated) == (0, True)
    [record] = await recorded(client_world)
    assert (record.status, record.is_estimated) == (UsageStatus.USAGE_STATUS_SUCCESS, True)


async def test_usage_that_cannot_be_counted_is_recorded_before_that_is_told(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    with pytest.raises(ZeroDivisionError):
        await walk(client_world, lambda _: "text", usage_of=lambda _: 1 // 0)
    [record] = await recorded(client_world)
    assert record.is_estimated


async def test_with_keys_of_its_own_a_program_needs_no_credentials(
    client_world: ClientWorld, walk: Walker, recorded: Recorded
) -> None:
    attempts: list[Attempt] = []
    await walk(client_world, attempts.append, credentials=False)
    [attempt] = attempts
    assert (attempt.api_key, attempt.base_url) == (None, client_world.providers["A"].url)
    assert len(await recorded(client_world)) == 1


async def test_a_user_routes_for_itself_and_nothing_is_recorded(
    client_world: ClientWorld, router: OwnServer, recorded: Recorded
) -> None:
    request = RouteRequest()
    request.CopyFrom(client_world.request)
    request.ClearField("user_id")
    async with router.client("user", uuid.UUID(client_world.user_id)) as user:

        async def call(attempt: Attempt) -> str:
            return attempt.model_name

        routed = await user.route_and_call(call, request)
    assert (routed.answer, routed.cost_usd, routed.unreported) == ("model-a", None, ())
    assert await recorded(client_world) == []


async def test_a_provider_that_takes_no_key_is_called_without_one(client_world: ClientWorld, walk: Walker) -> None:
    """The catalogue's local vLLM: no BYOK, and no platform key."""
    attempts: list[Attempt] = []
    routed = await walk(client_world, attempts.append, RouteRequest(power_level=ECO, user_id=str(uuid.uuid4())))
    assert (attempts[0].provider_name, attempts[0].api_key) == ("Local vLLM", None)
    assert attempts[0].base_url == attempts[0].model.api_endpoint == "http://localhost:8000/v1"
    assert routed.cost_usd == 0


async def test_a_cancelled_call_stays_cancelled_and_is_recorded(
    client_world: ClientWorld, router: OwnServer, recorded: Recorded
) -> None:
    client_world.providers["A"].behave(faults.silent())
    async with router.client("service") as service:
        task = asyncio.create_task(service.route_and_call(chat_async, client_world.request, credentials=True))
        await client_world.providers["A"].request(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    [record] = await recorded(client_world)
    assert FAILURE(record.failure) == "ATTEMPT_FAILURE_CANCELLED"
    assert client_world.providers["B"].chats == []


async def test_an_interrupt_passes_and_is_recorded(
    client_world: ClientWorld, router: OwnServer, recorded: Recorded
) -> None:
    def interrupted(_: Attempt) -> None:
        raise KeyboardInterrupt

    def run() -> None:
        with Client(router.address, token=client_world.service_token) as service, pytest.raises(KeyboardInterrupt):
            service.route_and_call(interrupted, client_world.request)

    await asyncio.to_thread(run)
    [record] = await recorded(client_world)
    assert FAILURE(record.failure) == "ATTEMPT_FAILURE_CANCELLED"


async def test_an_answer_is_not_lost_when_its_usage_cannot_be_recorded(
    client_world: ClientWorld, walk: Walker, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """More tokens than a record can hold: the server refuses it."""
    client_world.providers["A"].behave(refusals.status(500))
    routed = await walk(client_world, usage_of=lambda _: Usage(input_tokens=2_000_000_000, output_tokens=1))
    assert routed.answer.choices[0].message.content == OK.text
    [lost] = routed.unreported
    assert (lost.request.request_id, lost.error.reason) == (routed.attempt.request_id, "INVALID_FIELD")
    assert f"the usage of attempt {routed.attempt.request_id} was not recorded" in caplog.text
    assert len(await recorded(client_world)) == 1


async def test_without_a_decision_nothing_is_called(client_world: ClientWorld, walk: Walker) -> None:
    calls: list[Attempt] = []
    with pytest.raises(NoEligibleModel):
        await walk(client_world, calls.append, RouteRequest(user_id=client_world.user_id, min_context_tokens=2**31))
    with pytest.raises(InvalidField):
        await walk(client_world, calls.append, RouteRequest(user_id="nobody"))
    assert calls == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"credentials": True}, "which name the user"),
        ({"credentials": True, "gateway": "http://127.0.0.1/v1"}, "exclude each other"),
    ],
)
async def test_what_contradicts_itself_is_refused(router: OwnServer, options: dict[str, Any], problem: str) -> None:
    async with router.client("service") as service:
        with pytest.raises(ValueError, match=problem):
            await service.route_and_call(chat_async, RouteRequest(), **options)
