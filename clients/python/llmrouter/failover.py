"""How route_and_call walks from model to model, the same for both clients.

The walk is a generator of steps: it says what to do next and is told what came of it. The clients do the steps, one of
them waiting, the other one awaiting.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from llmrouter import verdict
from llmrouter.attempt import UNTOLD, AllAttemptsFailed, Attempt, FailedAttempt, Routed, Unreported, Usage
from llmrouter.errors import LlmrouterError, NotFound, new_request_id
from llmrouter.v2.credential_service_pb2 import GetCredentialRequest, GetCredentialResponse
from llmrouter.v2.usage_pb2 import AttemptFailure, UsageStatus
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest, RecordUsageResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from llmrouter.v2.routing_service_pb2 import RouteRequest, RouteResponse, ScoredModel

T = TypeVar("T")
Steps: TypeAlias = "Generator[Step, Any, T]"

LAST_WORD_S = 2.0
"""How long recording may take while the program is being interrupted or cancelled."""
USER_HEADER = "x-llmrouter-user-id"

log = logging.getLogger("llmrouter")


@dataclass(frozen=True, slots=True)
class AskRoute:
    """Make the decision; the answer is a RouteResponse."""

    request: RouteRequest


@dataclass(frozen=True, slots=True)
class AskCredential:
    """Get a provider's key; the answer is a GetCredentialResponse."""

    request: GetCredentialRequest


@dataclass(frozen=True, slots=True)
class AskToken:
    """Get the client's own token; the answer is a text."""


@dataclass(frozen=True, slots=True)
class CallProvider:
    """Let the program call the provider; the answer is its own."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Record:
    """Record an attempt's usage; the answer is a RecordUsageResponse."""

    request: RecordUsageRequest
    timeout_s: float | None = None


Step: TypeAlias = AskRoute | AskCredential | AskToken | CallProvider | Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[T]):
    """What route_and_call was asked to do."""

    request: RouteRequest
    credentials: bool
    gateway: str | None
    usage_of: Callable[[T], Usage | None]
    verdict_of: Callable[[Exception], verdict.Verdict] | None
    request_id: str | None
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if self.credentials and self.gateway is not None:
            raise ValueError("credentials and gateway exclude each other: the gateway has the credentials itself")
        if self.credentials and not self.request.user_id:
            raise ValueError("credentials are for services, which name the user: RouteRequest(user_id=...)")

    def judge(self, error: Exception) -> verdict.Verdict:
        """Tell what an error means."""
        if self.verdict_of is not None:
            return self.verdict_of(error)
        return verdict.of_provider(error) if self.gateway is None else verdict.of_gateway(error)


def routed(plan: Plan[T]) -> Steps[Routed[T]]:
    """Walk the models of a decision, best first, until one answers.

    What `plan.judge` holds for the request's own fault, or for nobody's, is raised as it is. AllAttemptsFailed when no
    model is left. Each attempt's usage is recorded if the plan is a service's and no gateway does so.
    """
    decision: RouteResponse = yield AskRoute(plan.request)
    walk = _Walk(plan, decision, plan.request_id or new_request_id())
    for number, model in enumerate((decision.primary, *decision.fallbacks), 1):
        attempt = yield from walk.prepare(number, model)
        result = yield from walk.carry_out(attempt)
        if result is not None:
            return result
    told = "; ".join(str(failed) for failed in walk.failures)
    raise AllAttemptsFailed(
        message=f"all {len(walk.failures)} models failed: {told}",
        request_id=walk.request_id,
        failures=tuple(walk.failures),
        unreported=tuple(walk.unreported),
    ) from ExceptionGroup("what each model's call raised", [failed.error for failed in walk.failures])


def drive(steps: Steps[T], do: Callable[[Step], object]) -> T:
    """Do the steps, and return the result."""
    advance: Callable[[], Step] = partial(next, steps)
    try:
        while True:
            step = advance()
            try:
                advance = partial(steps.send, do(step))
            except BaseException as error:  # noqa: BLE001 - the walk raises it again, if it is not its business
                advance = partial(steps.throw, error)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        del advance  # an error would keep this frame, and this frame the error


async def drive_async(steps: Steps[T], do: Callable[[Step], Awaitable[object]]) -> T:
    """Do the steps, and return the result."""
    advance: Callable[[], Step] = partial(next, steps)
    try:
        while True:
            step = advance()
            try:
                advance = partial(steps.send, await do(step))
            except BaseException as error:  # noqa: BLE001 - the walk raises it again, if it is not its business
                advance = partial(steps.throw, error)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        del advance  # an error would keep this frame, and this frame the error


class _Walk(Generic[T]):
    """What is known on the way."""

    def __init__(self, plan: Plan[T], decision: RouteResponse, request_id: str) -> None:
        self._plan, self._decision, self.request_id = plan, decision, request_id
        self.failures: list[FailedAttempt] = []
        self.unreported: list[Unreported] = []

    def prepare(self, number: int, model: ScoredModel) -> Steps[Attempt]:
        """Make an attempt, with what it needs to be let in."""
        attempt = Attempt(
            number=number,
            decision=self._decision,
            model=model,
            base_url=model.api_endpoint,
            request_id=f"{self.request_id}/{number}",
        )
        user_id = self._plan.request.user_id
        if self._plan.gateway is not None:
            attempt.base_url = self._plan.gateway
            attempt.api_key = yield AskToken()
            attempt.headers = {USER_HEADER: user_id} if user_id else {}
        elif self._plan.credentials:
            asked = GetCredentialRequest(
                user_id=user_id, provider_id=model.provider_id, decision_id=self._decision.decision_id
            )
            try:
                credential: GetCredentialResponse = yield AskCredential(asked)
            except NotFound:
                return attempt  # a local one, perhaps, which takes no key
            attempt.api_key, attempt.payer = credential.api_key, credential.payer
            attempt.base_url = credential.api_endpoint
        return attempt

    def carry_out(self, attempt: Attempt) -> Steps[Routed[T] | None]:
        """Let the program call the provider; None when the next model is to be tried."""
        began = self._plan.clock()
        try:
            answer: T = yield CallProvider(attempt)
        except Exception as error:
            found = self._plan.judge(error)
            self.failures.append(FailedAttempt(attempt, error, found.failure))
            yield from self._record(self._failed(attempt, error, found.failure, began))
            if attempt.is_final or not found.try_next:
                raise
            return None
        except BaseException as error:  # cancelled or interrupted
            cancelled = AttemptFailure.ATTEMPT_FAILURE_CANCELLED
            yield from self._record(self._failed(attempt, error, cancelled, began), LAST_WORD_S)
            raise
        record, told = self._base(attempt, began), _told(UNTOLD)
        try:
            usage = self._plan.usage_of(answer) or UNTOLD
            told = _told(usage)
        finally:
            record.MergeFrom(told)
            recorded = yield from self._record(record)
        return Routed(
            answer=answer,
            attempt=attempt,
            failures=tuple(self.failures),
            usage=usage,
            cost_usd=None if recorded is None else recorded.cost_usd,
            unreported=tuple(self.unreported),
        )

    def _record(self, request: RecordUsageRequest, timeout_s: float | None = None) -> Steps[RecordUsageResponse | None]:
        """Record it if that is this client's part. What cannot be recorded takes no answer with it."""
        if self._plan.gateway is not None or not request.user_id:
            return None
        try:
            recorded: RecordUsageResponse = yield Record(request, timeout_s)
        except Exception as error:  # noqa: BLE001 - the server's, or of the program's token function
            shown = error if isinstance(error, LlmrouterError) else type(error).__name__
            log.warning("the usage of attempt %s was not recorded: %s", request.request_id, shown)
            self.unreported.append(Unreported(request, error))
            return None
        return recorded

    def _base(self, attempt: Attempt, began: float) -> RecordUsageRequest:
        return RecordUsageRequest(
            user_id=self._plan.request.user_id,
            request_id=attempt.request_id,
            model_id=attempt.model.model_id,
            latency_ms=round((self._plan.clock() - began) * 1000),
            decision_id=self._decision.decision_id,
            payer=attempt.payer,
        )

    def _failed(
        self, attempt: Attempt, error: BaseException, failure: AttemptFailure.ValueType, began: float
    ) -> RecordUsageRequest:
        """Return the record of a failure. It has the error's kind and not its text, which may hold a key."""
        status = verdict.status_of(error) if isinstance(error, Exception) else None
        kind = type(error).__name__
        record = self._base(attempt, began)
        record.status, record.failure = UsageStatus.USAGE_STATUS_ERROR, failure
        record.error_message = kind if status is None else f"{kind}: status {status}"
        return record


def _told(usage: Usage) -> RecordUsageRequest:
    return RecordUsageRequest(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        is_estimated=usage.is_estimated,
        status=UsageStatus.USAGE_STATUS_SUCCESS,
    )
