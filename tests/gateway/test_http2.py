"""Providers that speak HTTP/2, as most do: by TLS with their own name, and with the same outcome for the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.answers import checked, is_unharmed
from gateway.behaviour import ok
from gateway.failover_play import Outcome, play, play_all
from gateway.failover_rows import BOTH, CONNECT, STREAM, TOLD, Row
from gateway.http2_rows import HTTP_2_ROWS, HTTP_2_SCENARIOS, go_away

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from gateway.chat_stack import ChatStack


AT_ONCE = 3
"""Fewer than over HTTP/1.1: the providers' TLS and frames are this process's work."""
ENVOY_THREADS = 2
"""Each has connections of its own."""


def context(chat: ChatStack, *protocols: str, name: str = "localhost") -> ssl.SSLContext:
    """Return that of a provider with this name who offers these protocols."""
    made = chat.authority.server(name)
    made.set_alpn_protocols(protocols)
    return made


@pytest.fixture(scope="module")
async def http2_outcomes(
    request: pytest.FixtureRequest, chat: ChatStack, impatient: ChatStack
) -> Mapping[str, Outcome | BaseException]:
    wanted = {
        item.callspec.params["name"]: HTTP_2_SCENARIOS[item.callspec.params["name"]]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "http2_outcomes" in item.fixturenames
    }
    return await play_all(
        chat, impatient, wanted, tls=lambda stack: {"A": context(stack, "h2", "http/1.1")}, at_once=AT_ONCE
    )


@pytest.mark.parametrize("name", HTTP_2_SCENARIOS)
def test_a_failing_provider_costs_the_client_no_more_over_http_2(
    name: str, http2_outcomes: Mapping[str, Outcome | BaseException]
) -> None:
    if isinstance(outcome := http2_outcomes[name], BaseException):
        raise outcome
    assert {seen.version for seen in outcome.world.a.chats} == {"HTTP/2"}
    assert {seen.version for seen in outcome.world.b.chats} <= {"HTTP/1.1"}


def test_no_two_rows_over_http_2_have_the_same_name() -> None:
    assert len(HTTP_2_SCENARIOS) == sum(len(row.asked) for row in HTTP_2_ROWS)


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [(("h2", "http/1.1"), "HTTP/2"), (("h2",), "HTTP/2"), (("http/1.1",), "HTTP/1.1"), ((), "HTTP/1.1")],
    ids=["both", "HTTP/2", "HTTP/1.1", "nothing"],
)
@pytest.mark.parametrize("asked", BOTH)
async def test_a_provider_is_spoken_to_as_it_offers_by_its_name(
    chat: ChatStack, offered: tuple[str, ...], spoken: str, asked: str
) -> None:
    made, names = context(chat, *offered), []
    made.sni_callback = lambda _socket, name, _context: names.append(name)
    world = await chat.new_world(tls={"A": made})
    answer = checked(200)
    world.a.behave(ok(answer))
    reply = await chat.ask(world, stream=asked == STREAM)
    (seen,) = world.a.chats
    assert (reply.status, seen.version, seen.headers["host"]) == (200, spoken, f"localhost:{world.a.port}")
    assert set(names) == {"localhost"}
    assert reply.text == answer.text
    assert is_unharmed(reply.text)


@pytest.mark.parametrize("asked", BOTH)
async def test_a_provider_with_a_certificate_for_another_name_is_sent_nothing(chat: ChatStack, asked: str) -> None:
    world = await chat.new_world(tls={"A": context(chat, "h2", name="other.test")})
    row = Row((ok(),), "B's answer", "B", (f"A: {CONNECT}", f"A: {CONNECT}", f"B: {TOLD}"))
    await play(chat, world, row, asked)
    assert world.a.connections == 0


async def test_requests_share_connections_and_leave_the_one_that_takes_no_more(chat: ChatStack) -> None:
    world = await chat.new_world(tls={"A": context(chat, "h2")})
    before = 4 * ENVOY_THREADS
    world.a.behave(*[ok()] * before, go_away(), ok())
    for _ in range(2 * before):
        assert (await chat.ask(world, stream=True)).is_done
    used = [seen.connection for seen in world.a.chats]
    assert len(set(used[:before])) <= ENVOY_THREADS
    assert used[before] not in used[before + 1 :]
    assert world.b.chats == []
