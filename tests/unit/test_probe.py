from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from hostile_provider import (
    Authority,
    HostileProvider,
    answer,
    drip,
    echo,
    flood,
    hostile_provider,
    reset,
    send,
    send_and_hang,
)
from llmrouter_server.byok.cipher import Credential
from llmrouter_server.byok.probe import MAX_HEAD_BYTES, TOTAL_S, Failure, Probe, ProbeError
from llmrouter_server.byok.provider_auth import auth_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from hostile_provider import Behaviour

CANARY = "sk-canary-0123456789abcdef"
HEADERS = auth_of("openai").headers(Credential(CANARY))
OK = "HTTP/1.1 200 OK\r\n"
SOON_S = 0.3
"""For what never ends."""


def probe(
    *, allow_private: bool = True, tls: ssl.SSLContext | None = None, total_s: float = TOTAL_S, **names: Sequence[str]
) -> Probe:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host in names:
            return names[host]
        raise OSError("no such name")

    return Probe(allow_private=allow_private, tls=tls, resolve=resolve if names else None, total_s=total_s)


async def failure_of(status: object) -> Failure:
    with pytest.raises(ProbeError) as error:
        await status  # type: ignore[misc]
    assert CANARY not in f"{error.value} {error.value!r}"
    return error.value.failure


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("status", [200, 204, 301, 302, 400, 401, 403, 404, 429, 500, 503, 999])
async def test_the_status_is_the_answer(status: int) -> None:
    async with hostile_provider(answer(f"{status} whatever", "location: http://127.0.0.1:1/")) as provider:
        assert await probe().status(f"{provider.url}/models", HEADERS) == status
    assert provider.connections == 1  # no redirect is followed, nothing is tried again


async def test_the_request_is_a_plain_get_with_the_key() -> None:
    async with hostile_provider(answer("200 OK")) as provider:
        await probe().status(f"{provider.url}/models", HEADERS)
    assert provider.requests[0].startswith("GET /v1/models HTTP/1.1\r\n")
    assert provider.headers == {
        "host": f"127.0.0.1:{provider.port}",
        "authorization": f"bearer {CANARY}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "llmrouter",
        "connection": "close",
    }


@pytest.mark.parametrize(
    ("provider_type", "expected", "path"),
    [
        ("openai", {"authorization": "Bearer k"}, "/models"),
        ("never-heard-of", {"authorization": "Bearer k"}, "/models"),
        ("openrouter", {"authorization": "Bearer k"}, "/key"),
        ("anthropic", {"x-api-key": "k", "anthropic-version": "2023-06-01"}, "/models"),
    ],
)
def test_each_kind_of_provider_is_given_the_key_its_way(
    provider_type: str, expected: dict[str, str], path: str
) -> None:
    auth = auth_of(provider_type)
    assert dict(auth.headers(Credential("k"))) == expected
    assert auth.check_path == path


@pytest.mark.parametrize(
    "behaviour",
    [
        send_and_hang((OK + "content-length: 1000\r\n\r\n").encode()),
        send_and_hang((OK + "content-length: 1000\r\n\r\nab").encode()),
        send((OK + "content-length: 1000\r\n\r\nab").encode()),
        flood((OK + "\r\n").encode() + b"a" * 65_536),
        answer("200 OK", "content-encoding: gzip", body=b"\x1f\x8b\x08\x00" + b"\x00" * 1000),
        send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK.encode() + b"\r\n"),
        send(b"HTTP/1.0 200 OK\r\n\r\n"),
    ],
    ids=["hangs before the body", "within it", "cuts it off", "floods", "gzip bomb", "hints first", "is old"],
)
async def test_whatever_the_body_is_it_is_not_read(behaviour: Behaviour) -> None:
    async with hostile_provider(behaviour) as provider:
        assert await probe().status(provider.url, HEADERS) == 200


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (send_and_hang(b""), Failure.TIME_OUT),
        (send_and_hang(OK.encode()), Failure.TIME_OUT),
        (send_and_hang(b"HTTP/1.1 100 Continue\r\n\r\n"), Failure.TIME_OUT),
        (drip((OK + "x: ").encode() + b"y" * 2000), Failure.TIME_OUT),
        (reset, Failure.NO_CONNECTION),
        (send(b""), Failure.NO_CONNECTION),
        (send(OK.encode()), Failure.NO_CONNECTION),
        (send(b"\x16\x03\x01\x00\xff" * 50), Failure.NO_HTTP),
        (send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Failure.NO_HTTP),
        (send(b"HTTP/1.1 abc\r\n\r\n"), Failure.NO_HTTP),
        (send(b"HTTP/1.1 20\r\n\r\n"), Failure.NO_HTTP),
        (send(OK.encode() + b"bad header\r\n\r\n"), Failure.NO_HTTP),
        (send(OK.encode() + b"x: a\0b\r\n\r\n"), Failure.NO_HTTP),
        (send(OK.encode() + b"content-length: -1\r\n\r\n"), Failure.NO_HTTP),
        (send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), Failure.NO_HTTP),
        (flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 100), Failure.NO_HTTP),
        (flood(b"x" * 1000), Failure.NO_HTTP),
        (flood(OK.encode() + b"x: " + b"y" * 100_000), Failure.NO_HTTP),
        (flood(b"\r\n" * 1000), Failure.NO_HTTP),
    ],
)
async def test_a_server_that_misbehaves_costs_a_bounded_time_and_no_more(
    behaviour: Behaviour, failure: Failure
) -> None:
    total_s = SOON_S if failure is Failure.TIME_OUT else TOTAL_S
    async with hostile_provider(behaviour) as provider:
        assert await failure_of(probe(total_s=total_s).status(provider.url, HEADERS)) is failure


async def test_at_most_64_kib_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    really_read = asyncio.StreamReader.read

    async def read(reader: asyncio.StreamReader, most: int = -1) -> bytes:
        received = await really_read(reader, most)
        taken.append(len(received))
        return received

    async with hostile_provider(flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)) as provider:
        monkeypatch.setattr(asyncio.StreamReader, "read", read)
        assert await failure_of(probe().status(provider.url, HEADERS)) is Failure.NO_HTTP
    assert sum(taken) == MAX_HEAD_BYTES


async def test_a_key_that_is_echoed_stays_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with hostile_provider(echo) as provider:
        assert await probe().status(provider.url, HEADERS) == 401
    assert CANARY in provider.requests[0]
    assert CANARY not in caplog.text


async def test_a_key_that_fits_no_header_is_told_to_nobody() -> None:
    broken = auth_of("openai").headers(Credential(f"{CANARY}\r\nx: y"))
    async with hostile_provider(answer("200 OK")) as provider:
        assert await failure_of(probe().status(provider.url, broken)) is Failure.NO_HTTP
    assert provider.connections == 0


async def test_nobody_listening_is_no_connection() -> None:
    async with hostile_provider(answer("200 OK")) as provider:
        pass
    assert await failure_of(probe().status(provider.url, HEADERS)) is Failure.NO_CONNECTION


@pytest.mark.parametrize(
    "url", ["http:///v1", "http://[::1", "http://a:99999/", "http://" + "a" * 64 + ".test/", "http://no.such.name/"]
)
async def test_what_is_no_name_is_not_resolved(url: str) -> None:
    assert await failure_of(probe(some=[]).status(url, HEADERS)) is Failure.UNKNOWN_NAME


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "10.0.0.1"]
)
async def test_a_private_host_is_not_even_resolved(host: str) -> None:
    assert await failure_of(probe(allow_private=False).status(f"http://{host}/v1", HEADERS)) is Failure.PRIVATE


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]]
)
async def test_a_name_with_any_private_address_gets_no_connection(addresses: list[str]) -> None:
    async with hostile_provider(answer("200 OK")) as provider:
        url = f"http://provider:{provider.port}/v1"
        assert await failure_of(probe(allow_private=False, provider=addresses).status(url, HEADERS)) is Failure.PRIVATE
    assert provider.connections == 0


async def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    connected: list[str] = []

    async def rebind(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

    async def connect(host: str, _port: int, **_options: object) -> None:
        connected.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", connect)
    rebound = Probe(allow_private=False, resolve=rebind)
    assert await failure_of(rebound.status("http://provider.test/v1", HEADERS)) is Failure.NO_CONNECTION
    assert (asked, connected) == (["provider.test"], ["8.8.8.8"])


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with hostile_provider(answer("200 OK")) as provider:
        url = f"http://provider:{provider.port}/v1"
        assert await probe(provider=["::1", "127.0.0.2", "127.0.0.1"]).status(url, HEADERS) == 200


async def test_the_systems_own_names_are_used() -> None:
    async with hostile_provider(answer("200 OK")) as provider:
        assert await probe().status(f"http://localhost:{provider.port}/v1", HEADERS) == 200
    assert provider.headers["host"] == f"localhost:{provider.port}"


async def test_the_host_and_the_certificate_are_of_the_name_not_of_the_address(authority: Authority) -> None:
    async with hostile_provider(answer("200 OK"), authority.server("provider.test")) as provider:
        named = probe(tls=authority.client(), **{"provider.test": ["127.0.0.1"]})
        assert await named.status(f"https://provider.test:{provider.port}/v1/models", HEADERS) == 200
    assert provider.headers["host"] == f"provider.test:{provider.port}"


async def test_the_server_is_told_which_name_is_meant(authority: Authority) -> None:
    context, names = authority.server("provider.test"), []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with hostile_provider(answer("200 OK"), context) as provider:
        named = probe(tls=authority.client(), **{"provider.test": ["127.0.0.1"]})
        await named.status(f"https://provider.test.:{provider.port}/v1", HEADERS)
    assert names == ["provider.test"]


async def test_an_address_can_have_a_certificate_too(authority: Authority) -> None:
    async with hostile_provider(answer("200 OK"), authority.server("127.0.0.1")) as provider:
        url = f"https://127.0.0.1:{provider.port}/v1"
        assert await probe(tls=authority.client()).status(url, HEADERS) == 200


async def test_a_certificate_that_is_not_good_gets_no_key(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    for context in (
        authority.server("another.test"),
        authority.server("provider.test", ends_in=-1),
        stranger.server("provider.test"),
    ):
        async with hostile_provider(answer("200 OK"), context) as provider:
            named = probe(tls=authority.client(), **{"provider.test": ["127.0.0.1"]})
            url = f"https://provider.test:{provider.port}/v1"
            assert await failure_of(named.status(url, HEADERS)) is Failure.TLS
        assert provider.requests == []


async def test_the_systems_certificates_are_trusted_and_no_others(authority: Authority) -> None:
    async with hostile_provider(answer("200 OK"), authority.server("127.0.0.1")) as provider:
        assert await failure_of(probe().status(f"https://127.0.0.1:{provider.port}/", HEADERS)) is Failure.TLS


async def test_a_server_without_tls_is_told_apart(authority: Authority) -> None:
    async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak_first, "127.0.0.1", 0)
    async with server:
        port = HostileProvider(server.sockets[0].getsockname()[1]).port
        status = probe(tls=authority.client()).status(f"https://127.0.0.1:{port}/", HEADERS)
        assert await failure_of(status) is Failure.TLS


async def test_a_handshake_that_hangs_is_a_time_out(authority: Authority) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        hasty = probe(tls=authority.client(), total_s=SOON_S)
        assert await failure_of(hasty.status(url, HEADERS)) is Failure.TIME_OUT


async def test_waiting_for_ones_turn_is_bounded_too() -> None:
    async with hostile_provider(send_and_hang(b"")) as provider:
        one = probe(total_s=SOON_S)
        one._slots = asyncio.Semaphore(1)
        failures = await asyncio.gather(*(failure_of(one.status(provider.url, HEADERS)) for _ in range(5)))
    assert failures == [Failure.TIME_OUT] * 5
    assert provider.connections <= 2
