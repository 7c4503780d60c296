"""Tokens and key sets: what is accepted, what is refused, and what an attacker or a broken issuer can do to either."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from llmrouter_server.errors import DomainError
from llmrouter_server.runtime import auth
from llmrouter_server.runtime.auth import MIN_REFRESH_GAP_S, Caller, KeySet, Role, TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ISSUER, AUDIENCE, NOW = "https://issuer.test", "llmrouter", 1_800_000_000
USER, OTHER = uuid.UUID("0190c0de-0000-7000-8000-000000000001"), uuid.UUID("0190c0de-0000-7000-8000-000000000002")
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": str(USER), "exp": NOW + 600, "roles": ["user"]}
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
PUBLIC_PEM = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
NEW_KEY = ed25519.Ed25519PrivateKey.generate()
UNKNOWN = "the token is signed with a key that is not known here"


def segment(part: object) -> str:
    raw = part if isinstance(part, bytes) else (part if isinstance(part, str) else json.dumps(part)).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(alg: str = "EdDSA", /, key: Any = None, *, header: Any = None, payload: Any = None, **changes: Any) -> str:
    """Sign a token that is good but for the changes; a claim changed to None is left out."""
    claims = {name: value for name, value in (GOOD | changes).items() if value is not None}
    header = {"alg": alg, "kid": alg} if header is None else header
    unsigned = f"{segment(header)}.{segment(claims if payload is None else payload)}"
    return f"{unsigned}.{segment(jwt.get_algorithm_by_name(alg).sign(unsigned.encode(), key or PRIVATE[alg]))}"


def new_token(kid: str = "new", **more: object) -> str:
    return token(key=NEW_KEY, header={"alg": "EdDSA", "kid": kid} | more)


def jwk(alg: str = "EdDSA", /, key: Any = None, **changes: object) -> dict[str, Any]:
    """Return the public key with its algorithm for an id; a member changed to None is left out."""
    public = jwt.get_algorithm_by_name(alg).to_jwk((key or PRIVATE[alg]).public_key(), as_dict=True)
    members = public | {"kid": alg, "alg": alg, "use": "sig"} | changes
    return {name: value for name, value in members.items() if value is not None}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


ALL_KEYS = jwks(*(jwk(alg) for alg in PRIVATE))
WITH_NEW_KEY = jwks(jwk(), jwk(key=NEW_KEY, kid="new"))


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


STANDING = Clock()


@contextlib.asynccontextmanager
async def verifying(source: object, clock: Clock = STANDING, path: str = "roles") -> AsyncIterator[TokenVerifier]:
    keys = KeySet(str(source), clock=clock)
    await keys.start()
    yield TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE, roles_claim=tuple(path.split(".")), clock=clock)
    await keys.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(ALL_KEYS)
    return path


@pytest.fixture(scope="module")
async def verifier(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TokenVerifier]:
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_bytes(ALL_KEYS)
    async with verifying(path) as made:
        yield made


async def user_of(verifier: TokenVerifier, good: str) -> uuid.UUID:
    return (await verifier.verify(good)).user_id


async def refusal(verifier: TokenVerifier, bad: str) -> str:
    """Return why the token is refused."""
    with pytest.raises(DomainError) as raised:
        await verifier.verify(bad)
    error = raised.value
    assert (error.reason, error.code) == ("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED)
    assert not [part for part in bad.split(".") if len(part) > 20 and part in error.message]
    return error.message


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


# --- algorithms ---


@pytest.mark.parametrize("alg", PRIVATE)
async def test_a_good_token_of_each_algorithm_tells_the_caller(verifier: TokenVerifier, alg: str) -> None:
    assert await verifier.verify(token(alg)) == Caller(USER, frozenset({Role.USER}))


@pytest.mark.parametrize("kid", ["RS256", "unknown"])
@pytest.mark.parametrize("alg", ["none", "HS256", "RS384", "PS256"])
async def test_any_other_algorithm_is_refused(verifier: TokenVerifier, alg: str, kid: str) -> None:
    for key in (b"secret", PUBLIC_PEM) if alg in {"none", "HS256"} else (PRIVATE["RS256"],):
        bad = token(alg, key, header={"alg": alg, "kid": kid})
        assert await refusal(verifier, bad) == "the token must be signed with RS256, ES256, EdDSA"


@pytest.mark.parametrize(("alg", "kid"), [(alg, kid) for alg in PRIVATE for kid in PRIVATE if alg != kid])
async def test_a_key_verifies_only_with_its_own_algorithm(verifier: TokenVerifier, alg: str, kid: str) -> None:
    assert await refusal(verifier, token(alg, header={"alg": alg, "kid": kid})) == UNKNOWN


async def test_a_token_signed_with_an_unknown_key_is_refused(verifier: TokenVerifier) -> None:
    assert await refusal(verifier, new_token()) == UNKNOWN
    assert await refusal(verifier, new_token("EdDSA")) == "the token is not valid: its signature does not match"


# --- the header ---

ODD = (None, 1, 1.5, True, [], ["EdDSA"], {}, {"a": 1}, "", "eddsa", "\ud800")


@pytest.mark.parametrize(
    "header",
    [
        *({"alg": "EdDSA", "kid": odd} for odd in ODD),
        *({"alg": odd, "kid": "EdDSA"} for odd in ODD),
        *({"kid": "EdDSA"}, {"alg": "EdDSA"}, {}),
        *({"alg": "EdDSA", "kid": "EdDSA", "exp": 1, "crit": crit} for crit in ([], ["exp"], ["b64"], "exp", None)),
        *({"alg": "EdDSA", "kid": "EdDSA", "b64": False, "crit": crit} for crit in (["b64"], [], None)),
        *([], "", "null", '"EdDSA"', "[" * 9_000, '{"x": ' + "9" * 5_000, b"\xff\xfe"),
    ],
    ids=lambda header: repr(header)[:60],
)
async def test_a_token_with_an_odd_header_is_refused(verifier: TokenVerifier, header: object) -> None:
    await refusal(verifier, token(header=header))


async def test_keys_that_a_token_brings_or_points_to_are_ignored(verifier: TokenVerifier) -> None:
    async with issuer(http(WITH_NEW_KEY)) as other:
        links = {"jku": other.url, "x5u": other.url, "jwk": jwk(key=NEW_KEY), "x5c": ["AA"]}
        assert await user_of(verifier, token(header={"alg": "EdDSA", "kid": "EdDSA"} | links)) == USER
        assert "signature does not match" in await refusal(verifier, new_token("EdDSA", **links))
        assert await refusal(verifier, new_token(**links)) == UNKNOWN
        assert other.asked == 0


# --- claims ---


@pytest.mark.parametrize(
    ("claim", "value", "why"),
    [
        *((claim, None, f"the claim {claim} is missing") for claim in ("iss", "aud", "sub", "exp")),
        *(("iss", value, "from another issuer") for value in ("https://other.test", f"{ISSUER}/", [ISSUER], 7)),
        *(("aud", value, "for another audience") for value in ("x", ["x", "llm"], {AUDIENCE: 1}, [AUDIENCE, 1], 7)),
        *(("exp", value, "has expired") for value in (NOW - 10, NOW - 10.5, 0, -(10**30))),
        *(("nbf", value, "is not valid yet") for value in (NOW + 11, NOW + 10.5, 10**30)),
        *(("sub", value, "sub is no UUID") for value in ("", "alice", f"{USER}0", "\ud800" * 32)),
        *(("sub", value, "cannot be read") for value in (7, True, [str(USER)], {})),
    ],
)
async def test_a_wrong_claim_is_refused(verifier: TokenVerifier, claim: str, value: object, why: str) -> None:
    assert why in await refusal(verifier, token(**{claim: value}))


NO_TIMES = ('"1"', "true", "false", "[]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400)


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize("value", NO_TIMES)
async def test_a_time_that_is_no_number_is_refused(verifier: TokenVerifier, claim: str, value: str) -> None:
    payload = json.dumps(GOOD | {claim: "HERE"}).replace('"HERE"', value)
    assert await refusal(verifier, token(payload=payload)) == f"the token's {claim} is no number"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        *(("exp", value) for value in (NOW - 9, NOW - 9.5, 2**63 - 1)),
        *(("nbf", value) for value in (NOW + 10, NOW + 9.5, 0)),
        *(("aud", value) for value in ([AUDIENCE], ["other", AUDIENCE])),
        *(("sub", str(USER).upper()), ("iat", NOW + 10_000)),
    ],
)
async def test_a_claim_within_its_rules_and_the_clock_skew_is_accepted(
    verifier: TokenVerifier, claim: str, value: object
) -> None:
    assert await user_of(verifier, token(**{claim: value})) == USER


@pytest.mark.parametrize("payload", ["", "null", "[]", '"x"', "{", "[" * 9_000, "9" * 5_000, b"\xff"])
async def test_a_signed_payload_that_is_no_json_object_is_refused(verifier: TokenVerifier, payload: str) -> None:
    assert "cannot be read" in await refusal(verifier, token(payload=payload))


# --- garbage ---


async def test_a_token_that_is_too_long_is_refused(verifier: TokenVerifier) -> None:
    for bad in ("a" * (auth.MAX_TOKEN_CHARS + 1), token(note="x" * auth.MAX_TOKEN_CHARS), "\ud800" * 10**6):
        assert await refusal(verifier, bad) == "the token is too long"


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
).filter(lambda value: value != "EdDSA")


@given(ANY_TEXT | st.lists(ANY_TEXT | st.binary().map(segment) | JSON.map(segment), max_size=5).map(".".join))
@example("\ud800")
@example("\udc80.é.\0")
async def test_garbage_is_refused(verifier: TokenVerifier, garbage: str) -> None:
    await refusal(verifier, garbage)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit"]), JSON, min_size=1), JSON)
async def test_no_header_makes_the_verifier_fail(
    verifier: TokenVerifier, changes: dict[str, Any], other: object
) -> None:
    header = {"alg": "EdDSA", "kid": "EdDSA", "typ": other, "jku": other}
    assert await user_of(verifier, token(header=header)) == USER
    await refusal(verifier, token(header=header | changes))


@given(st.sampled_from(["iss", "aud", "sub"]), st.dictionaries(st.sampled_from(["exp", "nbf", "jti", "roles"]), JSON))
async def test_no_claim_makes_the_verifier_fail(verifier: TokenVerifier, name: str, changes: dict[str, Any]) -> None:
    await refusal(verifier, token(payload=GOOD | {name: changes} | changes))
    with contextlib.suppress(DomainError):
        assert await user_of(verifier, token(payload=GOOD | changes)) == USER


@given(st.data())
async def test_a_token_with_one_character_changed_is_refused(verifier: TokenVerifier, data: st.DataObject) -> None:
    good = token()
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters(exclude_categories=(), exclude_characters=good[at]))
    await refusal(verifier, good[:at] + other + good[at + 1 :])


# --- roles ---

NESTED = "realm_access.roles"


@pytest.mark.parametrize(
    ("path", "claims", "roles"),
    [
        ("roles", {"roles": ["user", "admin", "service"]}, set(Role)),
        ("roles", {"roles": "admin"}, {Role.ADMIN}),
        ("roles", {"roles": ["root", "ADMIN", "user ", "user"]}, {Role.USER}),
        ("roles", {"roles": [1, None, True, ["admin"], {"admin": 1}, 1e400, "user", "user"]}, {Role.USER}),
        *(("roles", {"roles": value}, set()) for value in ({"admin": True}, 7, True, "", [], None)),
        (NESTED, {"realm_access": {"roles": ["service"]}}, {Role.SERVICE}),
        *((NESTED, {"realm_access": value}, set()) for value in (["admin"], "admin", 7, {}, {"roles": None}, None)),
        (NESTED, {"realm_access.roles": ["admin"]}, set()),
    ],
)
async def test_roles_are_read_from_their_claim(file: Path, path: str, claims: dict[str, Any], roles: set[Role]) -> None:
    async with verifying(file, path=path) as verifier:
        assert (await verifier.verify(token(**claims))).roles == roles


@pytest.mark.parametrize(
    ("roles", "named", "outcome"),
    [
        *((roles, "", USER) for roles in ([], [Role.USER], [Role.ADMIN], [Role.USER, Role.SERVICE])),
        *((roles, str(USER).upper(), USER) for roles in ([], [Role.USER], [Role.ADMIN], [Role.SERVICE])),
        *((roles, str(OTHER), OTHER) for roles in ([Role.SERVICE], [Role.USER, Role.SERVICE])),
        *((roles, str(OTHER), ["ROLE_REQUIRED"]) for roles in ([], [Role.USER], [Role.USER, Role.ADMIN])),
        ([Role.SERVICE], "", ["INVALID_FIELD", "user_id"]),
        *(([role], bad, ["INVALID_FIELD", "user_id"]) for role in Role for bad in ("x", f"{USER}0", "\ud800" * 32)),
    ],
)
def test_a_caller_acts_for_himself_and_a_service_for_whom_it_names(
    roles: list[Role], named: str, outcome: object
) -> None:
    try:
        result: object = Caller(USER, frozenset(roles)).acts_for(named)
    except DomainError as error:
        result = [error.reason, *(each.field for each in error.violations)]
    assert result == outcome


# --- remembered tokens ---


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tokens whose signatures were checked, in order; it grows."""
    seen: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda each, *rest, **named: seen.append(each) or decode(each, *rest, **named))
    return seen


async def test_a_token_is_checked_once_and_refused_after_its_time(file: Path, checked: list[str]) -> None:
    clock, mine = Clock(), token(exp=NOW + 60)
    async with verifying(file, clock) as verifier:
        callers = [await verifier.verify(mine) for _ in range(3)]
        assert callers == [Caller(USER, frozenset({Role.USER}))] * 3
        assert checked == [mine]
        clock.now += 69
        assert await user_of(verifier, mine) == USER
        clock.now += 1
        assert await refusal(verifier, mine) == "the token has expired"


async def test_the_oldest_of_too_many_remembered_tokens_is_forgotten(
    file: Path, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_CACHED_TOKENS", 3)
    tokens = [token(jti=str(number)) for number in range(5)]
    async with verifying(file) as verifier:
        for each in [*tokens, *tokens[2:], tokens[0]]:
            await verifier.verify(each)
        assert checked == [*tokens, tokens[0]]
        assert len(verifier._verified) == 3


async def test_refused_tokens_are_not_remembered(file: Path) -> None:
    async with verifying(file) as verifier:
        for bad in ("x", new_token(), new_token("EdDSA"), token(exp=NOW - 60), token(sub="x"), token("none", b"-")):
            await refusal(verifier, bad)
        assert verifier._verified == {}


@pytest.mark.parametrize("after", [jwk("ES256"), jwk(key=NEW_KEY), jwk("ES256", kid="EdDSA")])
async def test_a_token_is_refused_once_its_key_is_removed_or_changed(file: Path, after: dict[str, Any]) -> None:
    clock = Clock()
    async with verifying(file, clock) as verifier:
        assert await user_of(verifier, token()) == USER
        file.write_bytes(jwks(after))
        clock.now += MIN_REFRESH_GAP_S
        await refusal(verifier, new_token())
        await refusal(verifier, token())
        await refusal(verifier, token(jti="one that nobody remembers"))


async def test_remembered_tokens_outlive_a_key_set_that_is_read_again_unchanged(file: Path, checked: list[str]) -> None:
    clock, mine = Clock(), token()
    async with verifying(file, clock) as verifier:
        for _ in range(3):
            await verifier.verify(mine)
            clock.now += MIN_REFRESH_GAP_S
            await refusal(verifier, new_token())
    assert checked == [mine]


# --- the key set ---


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@dataclass
class Issuer:
    """Gives every request the same reply, when the gate is open; or drips it, a byte every 20 ms."""

    reply: bytes
    drips: bool
    asked: int = 0
    left: int = 0
    url: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await self.gate.wait()
            for piece in (bytes([byte]) for byte in self.reply) if self.drips else (self.reply,):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02 * self.drips)
        writer.close()
        self.left += 1


@contextlib.asynccontextmanager
async def issuer(reply: bytes, *, drips: bool = False) -> AsyncIterator[Issuer]:
    made = Issuer(reply, drips)
    made.gate.set()
    listener = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/jwks.json"
    try:
        yield made
    finally:
        listener.close()
        made.gate.set()
        for writer in made.writers:
            writer.transport.abort()
        await until(lambda: made.left == made.asked)


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


@pytest.mark.usefixtures("impatient")
async def test_a_url_that_hangs_is_given_up_and_holds_up_no_token_with_a_known_key() -> None:
    clock = Clock()
    async with issuer(http(ALL_KEYS)) as source, asyncio.timeout(20), verifying(source.url, clock) as verifier:
        source.gate.clear()
        clock.now += MIN_REFRESH_GAP_S
        waiting = asyncio.create_task(refusal(verifier, new_token()))
        await until(lambda: source.asked == 2)
        assert await user_of(verifier, token()) == USER
        assert not waiting.done()
        assert await waiting == UNKNOWN


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "reply", [http(b" " * 10_000), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000], ids=["body", "head"]
)
async def test_a_url_that_drips_is_given_up(reply: bytes) -> None:
    async with issuer(reply, drips=True) as source, asyncio.timeout(20), verifying(source.url) as verifier:
        assert (source.asked, source.left) == (1, 0)
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
