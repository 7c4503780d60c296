"""Bodies at the chat door: one that is no request is refused in OpenAI's shape, before any provider is asked."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from gateway.answers import OK
from gateway.test_chat_door import CHAT, assert_refused, body_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.chat_stack import ChatStack, World

LIMIT = 10 * 1024 * 1024
ONE = b'"messages":[{"role":"user","content":"x"}]'
MALFORMED = {
    "nothing": b"",
    "spaces": b"  \n",
    "no JSON": b"model=auto",
    "cut off": b'{"messages":[{"role":"user","content":"',
    "a list": b"[" + b"{" + ONE + b"}]",
    "a text": b'"messages"',
    "null": b"null",
    "two documents": b"{" + ONE + b"}{" + ONE + b"}",
    "a trailing comma": b"{" + ONE + b",}",
    "a comment": b"{/**/" + ONE + b"}",
    "a name twice": b"{" + ONE + b"," + ONE + b"}",
    "a name twice, once escaped": b'{"model":"auto","mod\\u0065l":"eco",' + ONE + b"}",
    "a name twice, far inside": b'{"messages":[{"role":"user","content":"x","content":"y"}]}',
    "no UTF-8": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "UTF-16": ("{" + ONE.decode() + "}").encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{" + ONE + b"}",
    "NaN": b'{"temperature":NaN,' + ONE + b"}",
    "a number beyond all": b'{"temperature":1e999,' + ONE + b"}",
    "a number of 5000 digits": b'{"seed":' + b"9" * 5000 + b"," + ONE + b"}",
    "nested too deep": b'{"metadata":' + b"[" * 1000 + b"]" * 1000 + b"," + ONE + b"}",
    "a raw line end in a text": b'{"user":"a\nb",' + ONE + b"}",
    "compressed": gzip.compress(b"{" + ONE + b"}"),
}
WRONG = {
    "model": [7, "", ["auto"], "x" * 300, "a\nb"],
    "messages": [None, [], {}, "hello"],
    "messages[0]": [["hello"], [7]],
    "messages[0].role": [[{"content": "x"}], [{"role": 7, "content": "x"}]],
    "messages[0].content": [[{"role": "user", "content": 7}], [{"role": "user", "content": {"text": "x"}}]],
    "stream": ["true", 1, {}],
    "stream_options": [[], "x"],
    "stream_options.include_usage": [{"include_usage": "yes"}],
    "max_tokens": [0, -1, 1.5, True, "5", 10**12],
    "max_completion_tokens": [0, "5"],
    "n": [0, 129, True, "2"],
    "tools": [{}, "x"],
    "tools[0]": [["x"]],
    "response_format": ["json", []],
    "allow_fallbacks": ["yes"],
    "models": [["a", "b"]],
    "Model": ["eco"],
    "MESSAGES": [[]],
}


async def in_chunks(chat: ChatStack, world: World, body: bytes) -> tuple[int, dict[str, Any]]:
    """Ask without saying how long the body is."""

    def ask() -> tuple[int, dict[str, Any]]:
        def parts() -> Iterator[bytes]:
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        connection = http.client.HTTPConnection("127.0.0.1", chat.stack.ports.http, timeout=20)
        headers = {"authorization": f"Bearer {world.user.token}", "transfer-encoding": "chunked"}
        try:
            connection.request("POST", CHAT, parts(), headers, encode_chunked=True)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_body_that_is_no_json_object_is_refused(chat: ChatStack, world: World, name: str) -> None:
    assert_refused(await chat.post(world, MALFORMED[name]), 400, "malformed_request")
    assert world.order() == []


async def test_a_wrong_field_is_named(chat: ChatStack, world: World) -> None:
    for param, values in WRONG.items():
        name = param.partition("[")[0].partition(".")[0]
        for value in values:
            assert_refused(await chat.post(world, body_of(world, **{name: value})), 400, "invalid_field", param)
    assert_refused(await chat.post(world, b"{}"), 400, "invalid_field", "messages")
    assert world.order() == []


async def test_a_body_without_a_length(chat: ChatStack, world: World) -> None:
    code, answer = await in_chunks(chat, world, body_of(world))
    assert (code, answer["choices"][0]["message"]["content"]) == (200, OK.text)
    assert world.a.chats[0].body["messages"] == [{"role": "user", "content": "x"}]
    code, answer = await in_chunks(chat, world, b"{")
    assert (code, answer["error"]["code"]) == (400, "malformed_request")


def large(world: World, size: int, **more: Any) -> bytes:
    """A body of exactly so many bytes: an image is large without being a long prompt."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    empty = body_of(world, messages=[{"role": "user", "content": [picture]}], **more)
    picture["image_url"]["url"] += "A" * (size - len(empty))  # type: ignore[index]
    return body_of(world, messages=[{"role": "user", "content": [picture]}], **more)


async def test_ten_mebibytes_are_taken_and_not_a_byte_more(chat: ChatStack, world: World) -> None:
    body = large(world, LIMIT)
    assert len(body) == LIMIT
    reply = await chat.post(world, body)
    assert reply.status == 200, reply
    assert world.a.chats[0].body["messages"] == json.loads(body)["messages"]
    assert_refused(await chat.post(world, large(world, LIMIT + 1)), 413, "body_too_large")
    code, answer = await in_chunks(chat, world, large(world, LIMIT + 1))
    assert (code, answer["error"]["code"]) == (413, "body_too_large")
    assert len(world.a.chats) == 1


async def test_what_the_plan_adds_to_ten_mebibytes_is_not_too_much(chat: ChatStack, world: World) -> None:
    reply = await chat.post(world, large(world, LIMIT, stream=True))  # whose usage is asked for
    assert reply.status == 200, reply
    assert world.a.chats[0].body["stream_options"] == {"include_usage": True}


FRAMED: Mapping[str, tuple[Sequence[bytes], bool, int]] = {
    "in halves": ([b'{"messages":[{"role":', b'"user","content":"x"}],"model":"%b"}'], False, 200),
    "with an empty end": ([b'{"messages":[{"role":"user","content":"x"}],"model":"%b"}', b""], False, 200),
    "with trailers": ([b'{"messages":[{"role":"user","content":"x"}],"model":"%b"}'], True, 200),
    "of nothing": ([b""], False, 400),
}
"""Bodies over HTTP/2, by how they come: DATA frames, whether trailers follow, and the status."""


def over_http2(port: int, token: str, parts: Sequence[bytes], *, has_trailers: bool) -> int:
    """Return the status."""
    http2 = H2Connection(H2Configuration(header_encoding="utf-8"))
    http2.initiate_connection()
    named = {":method": "POST", ":path": CHAT, ":scheme": "http", ":authority": "a", "authorization": f"Bearer {token}"}
    http2.send_headers(1, list(named.items()))
    for number, part in enumerate(parts):
        http2.send_data(1, part, end_stream=number == len(parts) - 1 and not has_trailers)
    if has_trailers:
        http2.send_headers(1, [("x-trailer", "1")], end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        while True:
            connection.sendall(http2.data_to_send())
            for event in http2.receive_data(connection.recv(65536)):
                if isinstance(event, ResponseReceived):
                    return int(dict(event.headers)[":status"])


@pytest.mark.parametrize("way", FRAMED)
async def test_a_body_over_http2(chat: ChatStack, world: World, way: str) -> None:
    parts, has_trailers, status = FRAMED[way]
    sent = [part.replace(b"%b", world.model.encode()) for part in parts]
    port, token = chat.stack.ports.http, world.user.token
    assert await asyncio.to_thread(over_http2, port, token, sent, has_trailers=has_trailers) == status
    got = [each.body["messages"] for each in world.a.chats]
    assert got == ([[{"role": "user", "content": "x"}]] if status == 200 else [])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
async def test_the_type_of_the_content_does_not_matter(chat: ChatStack, world: World, kind: str) -> None:
    reply = await chat.post(world, body_of(world), **{"content-type": kind})
    assert (reply.status, reply.text) == (200, OK.text)
    assert world.a.chats[0].headers["content-type"] == "application/json"
