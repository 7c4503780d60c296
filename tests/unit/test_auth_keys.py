"""Key sets: where they come from, and what a broken or slow issuer can do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from llmrouter_server.runtime import auth
from llmrouter_server.runtime.auth import MIN_REFRESH_GAP_S
from unit.auth_tokens import (
    ALL_KEYS,
    NEW_KEY,
    PRIVATE,
    UNKNOWN,
    USER,
    WITH_NEW_KEY,
    Clock,
    http,
    issuer,
    jwk,
    jwks,
    new_token,
    refusal,
    token,
    until,
    user_of,
    verifying,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(ALL_KEYS)
    return path


async def test_keys_are_read_once_from_a_url() -> None:
    async with issuer(http(ALL_KEYS)) as source, verifying(source.url) as verifier:
        assert [await user_of(verifier, token(alg)) for alg in PRIVATE] == [USER] * 3
        assert source.asked == 1


async def test_unknown_keys_make_the_set_be_read_again_but_not_too_often() -> None:
    clock = Clock()
    async with issuer(http(ALL_KEYS)) as source, verifying(source.url, clock) as verifier:
        for passed, asked in [(0.0, 1), (MIN_REFRESH_GAP_S - 0.5, 1), (0.5, 2), (0.0, 2), (MIN_REFRESH_GAP_S, 3)]:
            clock.now += passed
            for number in range(5):
                await refusal(verifier, new_token(f"unknown {number}"))
            assert source.asked == asked
        source.reply = http(WITH_NEW_KEY)
        clock.now += MIN_REFRESH_GAP_S
        assert await user_of(verifier, new_token()) == USER


async def test_a_token_with_a_new_key_waits_for_the_one_read_that_somebody_else_began_and_gave_up() -> None:
    clock = Clock()
    async with issuer(http(ALL_KEYS)) as source, verifying(source.url, clock) as verifier:
        source.reply = http(WITH_NEW_KEY)
        source.gate.clear()
        clock.now += MIN_REFRESH_GAP_S
        first = asyncio.create_task(verifier.verify(new_token("unknown")))
        await until(lambda: source.asked == 2)
        clock.now += 10 * MIN_REFRESH_GAP_S
        good = asyncio.create_task(verifier.verify(new_token()))
        others = [asyncio.create_task(refusal(verifier, new_token(f"unknown {number}"))) for number in range(20)]
        assert await user_of(verifier, token()) == USER
        first.cancel()
        await asyncio.wait([first])
        source.gate.set()
        assert (await good).user_id == USER
        assert await asyncio.gather(*others) == [UNKNOWN] * 20
        assert source.asked == 2


UNREADABLE = (
    *(b"", b"null", b"7", b'"keys"', b"[]", b"{}", b"{", b"\xff\xfe", b"[" * 100_000, WITH_NEW_KEY + b" " * 2**20),
    *(b'{"keys": %b}' % value for value in (b"null", b"7", b'"EdDSA"', b'{"EdDSA": {}}', b"[]", b"[7, null, [], {}]")),
    *(jwks(jwk(key=NEW_KEY, kid="new") | change) for change in ({"kty": "oct", "k": "c2Vj"}, {"alg": "HS256"})),
    jwks(jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)),
)
BROKEN_HTTP = (
    *(b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\n", http(WITH_NEW_KEY)[:-1], http(WITH_NEW_KEY)[:20]),
    *(b"HTTP/1.1 302 Go\r\nLocation: %b\r\n\r\n" % place for place in (b"/jwks.json", b"file:///", b"http://[", b"")),
    b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%b" % (len(WITH_NEW_KEY), WITH_NEW_KEY),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    *(b"HTTP/1.1 200 OK\r\n%b" % headers for headers in (b"x" * 100_000, b"X: x\r\n" * 1_000)),
)


@pytest.mark.parametrize("reply", [*map(http, UNREADABLE), *BROKEN_HTTP], ids=lambda reply: f"{len(reply)} bytes")
async def test_a_set_that_becomes_unreadable_leaves_the_old_keys_until_it_is_good_again(
    reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with issuer(http(ALL_KEYS)) as source, verifying(source.url, clock) as verifier:
        source.reply = reply
        clock.now += MIN_REFRESH_GAP_S
        assert await refusal(verifier, new_token()) == UNKNOWN
        assert caplog.messages == ["the key set cannot be read"]
        assert await user_of(verifier, token()) == USER
        source.reply = http(WITH_NEW_KEY)
        clock.now += MIN_REFRESH_GAP_S
        assert await user_of(verifier, new_token()) == USER


async def test_a_file_that_becomes_unreadable_leaves_the_old_keys(file: Path) -> None:
    clock = Clock()
    damages = [lambda text=text: file.write_bytes(text) for text in UNREADABLE]
    async with verifying(file, clock) as verifier:
        for damage in (*damages, file.unlink, file.mkdir):
            damage()
            clock.now += MIN_REFRESH_GAP_S
            assert await refusal(verifier, new_token()) == UNKNOWN
            assert await user_of(verifier, token()) == USER


async def test_keys_that_are_not_there_at_the_start_are_found_later(tmp_path: Path) -> None:
    clock = Clock()
    async with verifying(tmp_path / "later.json", clock) as verifier:
        assert await refusal(verifier, token()) == UNKNOWN
        (tmp_path / "later.json").write_bytes(ALL_KEYS)
        clock.now += MIN_REFRESH_GAP_S
        assert await user_of(verifier, token()) == USER


async def test_the_set_is_read_again_from_time_to_time_whatever_was_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REFRESH_INTERVAL_S", 0.001)
    async with issuer(http(ALL_KEYS)) as source, verifying(source.url) as verifier:
        for reply in (http(b"null"), http(b"[" * 100_000), b"no HTTP"):
            source.reply = reply
            enough = source.asked + 2
            await until(lambda enough=enough: source.asked >= enough)
        source.reply = http(WITH_NEW_KEY)
        await until(lambda: verifier._keys.version == 2)
        assert await user_of(verifier, new_token()) == USER


@pytest.mark.parametrize(
    "bad",
    [
        *(7, None, "key", ["key"], {}, {"kty": ["RSA"]}, {"kty": "new", "kid": "EdDSA"}),
        *({"kty": "oct", "k": "c2VjcmV0", "kid": "EdDSA"} | more for more in ({}, {"alg": "EdDSA"}, {"alg": "HS256"})),
        *(jwk("RS256", kid="EdDSA", alg=alg) for alg in ("RSA-OAEP", "ES256", "none", "", 7, ["RS256"], {"RS256": 1})),
        *(jwk("RS256", n=n) for n in (5, None, "", "AA", ["AA"])),
        *(jwk("ES256", x=x) for x in (5, None, "", "AA", ["AA"])),
        *(jwk("ES256", crv=crv) for crv in (5, None, "P-384", ["P-256"])),
        *(jwk(x=x, kid="bad") for x in (5, None, "", "!", "\ud800", ["AA"])),
        *(jwk(key=NEW_KEY, kid=kid) for kid in (7, True, ["EdDSA"], {"EdDSA": 1})),
        *(jwt.get_algorithm_by_name(alg).to_jwk(PRIVATE[alg], as_dict=True) | {"kid": "leaked"} for alg in PRIVATE),
    ],
)
async def test_one_unusable_key_costs_the_good_ones_nothing(file: Path, bad: object) -> None:
    for members in ([bad, jwk()], [jwk(), bad]):
        file.write_bytes(jwks(*members))
        async with verifying(file) as verifier:
            assert await user_of(verifier, token()) == USER
            for alg in PRIVATE:
                assert await refusal(verifier, token(alg, header={"alg": alg, "kid": "leaked"})) == UNKNOWN


@pytest.mark.parametrize("alg", PRIVATE)
async def test_a_key_that_names_no_algorithm_has_the_one_of_its_kind(file: Path, alg: str) -> None:
    file.write_bytes(jwks(jwk(alg, alg=None)))
    async with verifying(file) as verifier:
        assert await user_of(verifier, token(alg)) == USER


@pytest.mark.parametrize("kid", [None, "EdDSA"])
async def test_a_token_that_names_no_key_is_for_the_only_one_and_does_not_make_it_be_read(kid: str | None) -> None:
    clock = Clock()
    async with issuer(http(jwks(jwk(kid=kid)))) as source, verifying(source.url, clock) as verifier:
        clock.now += MIN_REFRESH_GAP_S
        assert await user_of(verifier, token(header={"alg": "EdDSA"})) == USER
        assert source.asked == 1


@pytest.mark.parametrize(("kid", "header"), [(None, {"alg": "EdDSA"}), ("EdDSA", {"alg": "EdDSA", "kid": "EdDSA"})])
async def test_of_keys_without_a_name_or_with_the_same_the_last_counts(
    file: Path, kid: str | None, header: Any
) -> None:
    file.write_bytes(jwks(jwk(kid=kid), jwk(key=NEW_KEY, kid=kid), jwk("ES256")))
    async with verifying(file) as verifier:
        assert await user_of(verifier, token(key=NEW_KEY, header=header)) == USER
        assert "signature does not match" in await refusal(verifier, token(header=header))


# --- a slow issuer ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "FETCH_TIMEOUT_S", 0.3)


async def test_a_url_that_hangs_holds_up_no_token_with_a_known_key_and_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    async with issuer(http(ALL_KEYS)) as source, asyncio.timeout(20), verifying(source.url, clock) as verifier:
        monkeypatch.setattr(auth, "FETCH_TIMEOUT_S", 600)
        source.gate.clear()
        clock.now += MIN_REFRESH_GAP_S
        waiting = asyncio.create_task(refusal(verifier, new_token()))
        await until(lambda: source.asked == 2)
        assert await user_of(verifier, token()) == USER
        assert not waiting.done()
        source.gate.set()
        assert await waiting == UNKNOWN
        monkeypatch.setattr(auth, "FETCH_TIMEOUT_S", 0.3)
        source.gate.clear()
        clock.now += MIN_REFRESH_GAP_S
        assert await refusal(verifier, new_token()) == UNKNOWN


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "reply", [http(b" " * 10_000), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000], ids=["body", "head"]
)
async def test_a_url_that_drips_is_given_up(reply: bytes) -> None:
    async with issuer(reply, drips=True) as source, asyncio.timeout(20), verifying(source.url) as verifier:
        await until(lambda: source.asked == 1)
        assert await refusal(verifier, token()) == UNKNOWN


@pytest.mark.usefixtures("impatient")
async def test_a_url_that_drips_its_body_is_hung_up_on() -> None:
    async with issuer(http(b" " * 10_000), drips=True) as source, verifying(source.url):
        await until(lambda: source.left == 1)


def background_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("key set")}


async def test_stopping_ends_all_tasks_and_waits_for_no_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "FETCH_TIMEOUT_S", 600)
    clock, before = Clock(), background_tasks()
    async with issuer(http(ALL_KEYS)) as source, asyncio.timeout(20):
        async with verifying(source.url, clock) as verifier:
            source.gate.clear()
            clock.now += MIN_REFRESH_GAP_S
            waiting = asyncio.create_task(refusal(verifier, new_token()))
            await until(lambda: source.asked == 2)
        assert await waiting == UNKNOWN
        assert background_tasks() == before
