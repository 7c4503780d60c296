"""How both Python clients connect, and what they send of a token and to whom."""

from __future__ import annotations

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import llmrouter
from client_stand_in import TOKEN, Route, StandIn, async_route, serving
from llmrouter import AsyncClient, AsyncRefreshingToken, Client, RefreshingToken, Unavailable, connection


async def test_a_function_gives_a_token_for_each_call(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    tokens = iter(["first", "second"])
    await route(target, token=lambda: next(tokens))
    await route(target, token=lambda: next(tokens))
    assert [call["authorization"] for call in servicer.calls] == ["Bearer first", "Bearer second"]


async def test_an_asynchronous_function_gives_the_token(stand_in: tuple[StandIn, str]) -> None:
    servicer, target = stand_in

    async def token() -> str:
        await asyncio.sleep(0)
        return "refreshed"

    await async_route(target, token=token)
    assert servicer.calls[0]["authorization"] == "Bearer refreshed"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"target": ""}, "target is empty"),
        ({"target": "localhost:1", "timeout": 0}, "timeout must be"),
        ({"target": "localhost:1", "timeout": float("nan")}, "timeout must be"),
        ({"target": "h:1", "insecure": True, "root_certificates": b""}, "exclude each other"),
        ({"target": "https://h", "insecure": True}, "insecure contradicts https"),
        ({"target": "http://localhost:1", "root_certificates": b""}, "root_certificates contradict http"),
        ({"target": "http://localhost:8080/api/v2/llm"}, "gRPC has no paths"),
        ({"target": "https://"}, "a target is like"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_arguments_that_make_no_sense_are_refused(
    kind: type[Client | AsyncClient], arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(**{"token": TOKEN} | arguments)


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("localhost:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("unix:/run/x.sock", True),
        ("dns:///localhost:1", True),
        ("ipv6:[::1]:1", True),
        ("router.internal:1", False),
        ("dns:///router.internal:1", False),
        ("localhost.example.com:1", False),
        ("10.0.0.1:1", False),
        ("0.0.0.0:1", False),
        ("https://localhost:1", False),
        ("grpcs://127.0.0.1:1", False),
        ("localhost:443", False),
        ("http://localhost:1", True),
        ("grpc://[::1]:1", True),
        ("dns://1.1.1.1/localhost:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
    ],
)
def test_tokens_leave_this_machine_only_encrypted(target: str, is_local: bool) -> None:
    assert (connection.Connection(target=target).credentials is None) is is_local
    if "://" not in target or target.startswith("dns:"):
        assert connection.Connection(target=target, insecure=True).credentials is None
        assert connection.Connection(target=target, root_certificates=b"x").credentials is not None


@pytest.mark.parametrize("target", ["http://router.internal:50051", "grpc://10.0.0.1", "http://localhost.example.com"])
def test_a_plain_url_of_another_machine_is_refused_unless_asked_for(target: str) -> None:
    with pytest.raises(ValueError, match="would send the token in plain text"):
        connection.Connection(target=target)
    assert connection.Connection(target=target, insecure=True).credentials is None


async def test_the_server_is_told_which_client_it_is(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    await route(target, token=TOKEN)
    assert servicer.calls[0]["user-agent"].startswith(f"llmrouter-python/{llmrouter.__version__} grpc-python")


async def test_no_proxy_is_asked_for_what_stays_on_this_machine(
    stand_in: tuple[StandIn, str], route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, target = stand_in
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert (await route(target, token=TOKEN, retries=False)).total_options == 1


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "ä"])
async def test_what_is_no_token_is_refused_without_being_shown(
    stand_in: tuple[StandIn, str], route: Route, token: str
) -> None:
    servicer, target = stand_in
    with pytest.raises(ValueError, match="no token has"):
        await route(target, token=token)
    await route(target, token=f"{TOKEN}\n")  # as read from a file
    assert [call["authorization"] for call in servicer.calls] == [f"Bearer {TOKEN}"]


async def test_a_kept_token_is_fetched_anew_shortly_before_it_expires() -> None:
    now, fetched = [1000.0], []

    def fetch() -> str:
        claims = json.dumps({"exp": now[0] + 100, "number": len(fetched)}).encode()
        fetched.append(f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s")
        return fetched[-1]

    async def fetch_async() -> str:
        return fetch()

    kept = RefreshingToken(fetch, clock=lambda: now[0])
    kept_async = AsyncRefreshingToken(fetch_async, clock=lambda: now[0])
    assert kept() == kept() == fetched[0]
    assert await kept_async() == await kept_async() == fetched[1]
    now[0] += 69
    assert (kept(), await kept_async()) == (fetched[0], fetched[1])
    now[0] += 1
    assert (kept(), await kept_async()) == (fetched[2], fetched[3])
    kept.forget("another")
    assert kept() == fetched[2]
    kept.forget(fetched[2])
    assert kept() == fetched[4]


async def test_many_callers_fetch_a_token_once() -> None:
    fetched: list[str] = []

    def fetch() -> str:
        fetched.append("a.b.c")
        return "a.b.c"

    async def fetch_async() -> str:
        await asyncio.sleep(0)
        return fetch()

    kept, kept_async = RefreshingToken(fetch), AsyncRefreshingToken(fetch_async)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: kept(), range(50))) == {"a.b.c"}
    assert set(await asyncio.gather(*(kept_async() for _ in range(50)))) == {"a.b.c"}
    assert len(fetched) == 2


@pytest.mark.parametrize("token", [None, b"bytes", 7])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_what_is_no_text_and_no_function_is_refused_at_once(kind: Any, token: Any) -> None:
    with pytest.raises(TypeError, match="token must be a str or a function that returns one, not"):
        kind("localhost:1", token=token)


async def test_a_function_that_returns_no_text_is_told_so(stand_in: tuple[StandIn, str], route: Route) -> None:
    with pytest.raises(TypeError, match="the function returned a NoneType and not a str"):
        await route(stand_in[1], token=lambda: None)


async def test_headers_may_be_written_in_any_case_and_never_replace_the_token(
    stand_in: tuple[StandIn, str], route: Route
) -> None:
    servicer, target = stand_in
    await route(target, token=TOKEN, headers={"X-Request-Id": "mine-1", "Authorization": "other"})
    assert (servicer.calls[0]["x-request-id"], servicer.calls[0]["authorization"]) == ("mine-1", f"Bearer {TOKEN}")
    for name, value in (("x-team", "se\ncret"), ("x team", "secret"), ("x-team", "sécret"), ("", "secret")):
        with pytest.raises(ValueError, match="is no header") as caught:
            await route(target, token=TOKEN, headers={name: value})
        assert "cret" not in str(caught.value)
    assert len(servicer.calls) == 1


async def test_an_asynchronous_client_says_that_it_belongs_to_one_loop(stand_in: tuple[StandIn, str]) -> None:
    def elsewhere(work: Any) -> None:
        asyncio.run(work())

    async with AsyncClient(stand_in[1], token=TOKEN) as client:
        for work in (client.settings.get_settings, lambda: anext(client.usage.export_usage())):
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                await asyncio.to_thread(elsewhere, work)
    with pytest.raises(RuntimeError, match="make it in an asynchronous function"):
        await asyncio.to_thread(AsyncClient, stand_in[1], token=TOKEN)


async def test_an_answer_may_be_larger_than_grpc_itself_takes(stand_in: tuple[StandIn, str], route: Route) -> None:
    servicer, target = stand_in
    servicer.padding = "x" * 5_000_000
    assert len((await route(target, token=TOKEN)).decision_id) == 5_000_000


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of `localhost`, signed by itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, *plain), made.public_bytes(pem)


async def test_over_tls_only_a_trusted_server_sees_the_token(certificate: tuple[bytes, bytes], route: Route) -> None:
    servicer = StandIn()
    with serving(servicer, grpc.ssl_server_credentials([certificate]), "localhost") as address:
        await route(f"https://{address}", token=TOKEN, root_certificates=certificate[1])
        with pytest.raises(Unavailable):
            await route(f"https://{address}", token=TOKEN, retries=False, timeout=5)
    assert [call["authorization"] for call in servicer.calls] == [f"Bearer {TOKEN}"]
