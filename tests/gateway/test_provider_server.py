from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway import behaviour, faults, refusals
from gateway.answers import checked
from gateway.behaviour import Fault, ok
from gateway.every_fault import FAULTS
from gateway.provider_client import KEY, Client, ask
from gateway.provider_exchange import Fate
from gateway.provider_server import provider
from gateway.refusals import status
from hostile_provider import Authority

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_it_was_asked_is_kept() -> None:
    async with provider(clock=lambda: 12.5) as served:
        client = await Client.connect(served)
        await client.ask(model="a", seed=7)
        await client.ask(model="b")
        await ask(served, model="c")
        await client.leave()
    first, second, third = served.requests
    assert (first.at, first.method, first.path, first.fate) == (12.5, "POST", "/v1/chat/completions", Fate.ANSWERED)
    assert (first.body["model"], first.body["seed"]) == ("a", 7)
    assert json.loads(first.raw) == first.body
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert [first.connection, second.connection, third.connection] == [1, 1, 2]
    assert served.connections == 2


async def test_a_request_in_chunks_with_expectation_is_read_as_any_other() -> None:
    async with provider() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nX-Two: a\r\nx-two: b\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'4\r\n{"mo\r\n8;x=y\r\ndel":"x"\r\n1\r\n}\r\n0\r\ntrailer: 1\r\n\r\n')
        assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        seen = await served.request()
    assert seen.body == {"model": "x"}
    assert seen.headers["x-two"] == "a, b"


async def test_the_models_are_listed_whatever_happens_to_completions() -> None:
    async with provider() as served:
        served.models[:] = ["one", "two"]
        served.behave(status(500))
        client = await Client.connect(served)
        listed = await client.send("GET", "/v1/models")
        served.list_models_as(refusals.unauthorized())
        refused = await client.send("GET", "/v1/models")
        unknown = await client.send("GET", "/v1/other")
        await client.leave()
    assert [model["id"] for model in listed.json["data"]] == ["one", "two"]
    assert (refused.status, unknown.status) == (401, 404)
    assert served.chats == []
    assert len(served.requests) == 3


async def test_behaviours_follow_one_another_and_the_last_one_stays() -> None:
    async with provider() as served:
        served.behave(status(500), refusals.rate_limited("7"), ok())
        assert [(await ask(served)).status for _ in range(4)] == [500, 429, 200, 200]
        assert [seen.fault for seen in served.requests] == ["500", "429 retry-after 7", "ok", "ok"]
        served.behave(status(503))
        assert (await ask(served)).status == 503
        served.behave()
        assert (await ask(served)).status == 200


async def test_one_model_may_fail_while_others_are_well() -> None:
    async with provider() as served:
        served.behave_for("bad", status(500), status(502))
        asked = ["bad", "good", "bad", "good", "bad"]
        assert [(await ask(served, model=model)).status for model in asked] == [500, 200, 502, 200, 502]
        served.behave_for("bad")
        assert (await ask(served, model="bad")).status == 200


async def test_a_provider_is_down_for_a_while_by_its_clock() -> None:
    now = [100.0]
    async with provider(clock=lambda: now[0]) as served:
        down = behaviour.for_a_while(30, refusals.unavailable(), ok())
        assert (await ask(served, down)).status == 503
        now[0] += 29
        assert (await ask(served)).status == 503
        now[0] += 1
        assert (await ask(served)).status == 200


async def test_a_provider_that_is_away_refuses_and_comes_back_to_its_port() -> None:
    async with provider() as served:
        client, port = await Client.connect(served), served.port
        assert (await client.ask()).status == 200
        await served.go_away()
        assert (await client.ask()).end == "reset"
        assert served.open_connections == 0
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await Client.connect(served)
        await served.come_back()
        assert (await ask(served)).status == 200
        assert served.port == port
        await client.leave()


async def test_a_provider_that_is_away_may_keep_its_connections() -> None:
    async with provider() as served:
        client = await Client.connect(served)
        await client.ask()
        await served.go_away(hang_up=False)
        assert (await client.ask()).status == 200
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(served)
        await client.leave()


async def test_a_client_that_leaves_is_noticed_though_nothing_is_being_said() -> None:
    async with provider() as served:
        served.behave(faults.silent())
        client = await Client.connect(served)
        asking = asyncio.ensure_future(client.ask())
        seen = await served.request()
        assert not seen.over.is_set()
        await client.leave()
        await seen.over.wait()
        assert seen.fate is Fate.LEFT
        assert (await asking).end in {"closed", "reset"}


async def test_all_of_it_works_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.client()
    async with provider(tls=authority.server("127.0.0.1")) as served:
        assert served.url.startswith("https://")
        assert (await ask(served, ok(checked()), stream=True, tls=tls)).end == "whole"
        assert (await ask(served, faults.reset_after(2), stream=True, tls=tls)).end == "reset"
        assert (await ask(served, faults.silent(), tls=tls, last=lambda _reply: True)).end == "waiting"
        await served.requests[-1].over.wait()
        assert [seen.fate for seen in served.requests] == [Fate.ANSWERED, Fate.BROKEN, Fate.LEFT]


async def test_what_is_no_http_costs_its_connection_only() -> None:
    async with provider() as served:
        for nonsense in (b"hello\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(nonsense)
            assert await reader.read() == b""
            writer.close()
        assert (await ask(served)).status == 200


async def test_a_faulty_fault_fails_its_test() -> None:
    async def act(_exchange: object) -> None:
        raise LookupError("a mistake in a test")

    with pytest.raises(LookupError, match="a mistake"):
        async with provider() as served:
            await ask(served, Fault("faulty", "Cannot do it.", act))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_closing_breaks_off_whatever_is_being_done(fault: Fault, stream: bool) -> None:
    async with provider() as served:
        served.behave(fault)
        client = await Client.connect(served)
        asking = asyncio.ensure_future(client.ask(stream=stream))
        seen = await served.request()
    assert seen.fault == fault.name
    assert seen.over.is_set()
    assert served.open_connections == 0
    await asking
    await client.leave()
