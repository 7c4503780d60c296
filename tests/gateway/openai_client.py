"""What the tests of OpenAI's own clients ask for and get."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import http_json
from gateway.answers import DONE, OK, event
from gateway.behaviour import Fault
from gateway.refusals import status
from gateway.sse_faults import dressed

if TYPE_CHECKING:
    from gateway.chat_stack import ChatStack, World

HELLO: list[Any] = [{"role": "user", "content": "Say something."}]
"""Messages."""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "What it is like outside",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ARGUMENTS = '{"city":"Zürich 🙂"}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()


def url(chat: ChatStack) -> str:
    return f"http://127.0.0.1:{chat.stack.ports.http}/v1"


def settings(chat: ChatStack, world: World, **changes: object) -> None:
    """Change the settings of the world's user."""
    answer = http_json.call("PUT", f"{chat.stack.base_url}/settings", token=world.user.token, body=changes)
    assert answer.status == 200, answer


def calls_a_tool() -> Fault:
    """Ask for a call of a tool; in a stream, its arguments come in pieces."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    frame = {"id": "chatcmpl-1", "created": 1, "model": "x"}

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return event(json.dumps({**frame, "object": "chat.completion.chunk", "choices": [choice]}).encode())

    def pieces(_: list[bytes]) -> list[bytes]:
        opening = CALL | {"index": 0, "function": {"name": "get_weather", "arguments": ""}}
        parts = [{"index": 0, "function": {"arguments": part}} for part in ARGUMENTS]
        return [chunk({"role": "assistant", "tool_calls": [opening]}), *(chunk({"tool_calls": [p]}) for p in parts),
                chunk({}, "tool_calls"), DONE]  # fmt: skip

    streamed = dressed("tool call", "Asks for a call of a tool.", pieces)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    whole = status(200, {**frame, "object": "chat.completion", "choices": [choice], "usage": OK.figures()})

    async def act(exchange: Any) -> None:
        await (streamed if exchange.seen.wants_stream else whole).act(exchange)

    return Fault("tool call", "Asks for a call of a tool.", act)
