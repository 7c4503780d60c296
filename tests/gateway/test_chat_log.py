"""The server's log has what went wrong with a chat request under the id that its client was told."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from gateway.test_chat_door import request
from gateway.test_taken_plans import Decides, Envoy
from llmrouter_server.gateway.ext_proc import ExtProc
from llmrouter_server.gateway.plan import PlansUnderWay

if TYPE_CHECKING:
    from gateway.chat_stack import ChatStack, World


@pytest.mark.parametrize("asked", ["a-client.1", "x" * 129, "two words", '1", "reason": "FORGED', None])
async def test_a_refusal_is_logged_under_its_request_id(chat: ChatStack, world: World, asked: str | None) -> None:
    sent = {} if asked is None else {"x-request-id": asked}
    broken = await chat.post(world, b"{", **sent)
    unknown = await request(chat, "GET", "/v1/models/no-such-model", world.user.token, **sent)
    for reply, reason in ((broken, "MALFORMED_REQUEST"), (unknown, "RESOURCE_NOT_FOUND")):
        told = reply.headers["x-request-id"]
        assert (told == asked) is (asked == "a-client.1")
        assert reason in await reasons_logged(chat, told)


async def reasons_logged(chat: ChatStack, request_id: str) -> list[str]:
    log, found = chat.stack.home / "logs" / "server.log", []
    async with asyncio.timeout(30):
        while not found:
            whole = log.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be being written
            lines = [json.loads(line) for line in whole.splitlines() if request_id in line]
            found = [line["reason"] for line in lines if line["message"] == "chat request refused"]
            await asyncio.sleep(0.02)
    return found


class Fails(Decides):
    async def decide(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("unexpected")


async def test_a_fault_is_logged_under_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    fails, envoy = Fails(), Envoy(request_id="chat-1")
    with caplog.at_level(logging.INFO):
        await ExtProc(fails, fails, fails, PlansUnderWay())._process(None, envoy)  # type: ignore[arg-type]
    logged: list[Any] = [line for line in caplog.records if line.name.endswith("ext_proc")]
    assert [(line.message, line.request_id) for line in logged] == [
        ("unhandled exception", "chat-1"),
        ("chat request refused", "chat-1"),
    ]
