"""Whether a plan was taken, when Envoy breaks its stream off: only then is what was set up for it still needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gateway_samples import plan
from llmrouter_server.gateway.decision import Prepared
from llmrouter_server.gateway.envoy_api import ProcessingRequest
from llmrouter_server.gateway.ext_proc import CHAT, ExtProc
from llmrouter_server.gateway.plan import PlansUnderWay
from llmrouter_server.runtime.auth import Caller

if TYPE_CHECKING:
    from llmrouter_server.gateway.plan import Plan

PLAN = plan()


class Decides:
    """Decides always the same, and keeps what it is told to take back."""

    def __init__(self) -> None:
        self.undone: list[Plan] = []

    async def verify(self, _token: str) -> Caller:
        return Caller(PLAN.user_id, frozenset())

    async def decide(self, *_: object, **__: object) -> Prepared:
        return Prepared(PLAN, "", is_slow=False)

    async def undo(self, undone: Plan) -> None:
        self.undone.append(undone)


class Envoy:
    """Asks for a decision, and breaks its stream off when it is there."""

    def __init__(self, breaks: BaseException, *, request_id: str = "1") -> None:
        sent = {":path": CHAT, "authorization": "Bearer t", "x-request-id": request_id}
        headers = [{"key": name, "raw_value": value.encode()} for name, value in sent.items()]
        body = b'{"messages":[{"role":"user","content":"Hi"}]}'
        self._sends = [
            ProcessingRequest(request_headers={"headers": {"headers": headers}}),
            ProcessingRequest(request_body={"body": body, "end_of_stream": True}),
        ]
        self._breaks = breaks
        self.got: list[Any] = []

    async def read(self) -> Any:
        return self._sends.pop(0)

    async def write(self, answer: Any) -> None:
        self.got.append(answer)
        if answer.HasField("request_body"):
            raise self._breaks


async def test_a_plan_that_envoy_has_is_kept_though_its_stream_is_over_already() -> None:
    # It ends the stream as soon as it has the plan, which a busy server hears before it knows that the plan was sent.
    decides, envoy = Decides(), Envoy(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await ExtProc(decides, decides, decides, PlansUnderWay())._process(None, envoy)  # type: ignore[arg-type]
    assert str(PLAN.decision_id) in str(envoy.got[-1])
    assert decides.undone == []


async def test_a_plan_that_could_not_be_sent_is_taken_back() -> None:
    decides, envoy = Decides(), Envoy(grpc.aio.InternalError("the call is over"))
    with pytest.raises(asyncio.CancelledError):
        await ExtProc(decides, decides, decides, PlansUnderWay())._process(None, envoy)  # type: ignore[arg-type]
    assert decides.undone == [PLAN]
