"""Tokens: what is accepted, what is refused, and what an attacker can do."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from llmrouter_server.errors import DomainError
from llmrouter_server.runtime import auth
from llmrouter_server.runtime.auth import MIN_REFRESH_GAP_S, Caller, Role, TokenVerifier
from unit.auth_tokens import (
    ALL_KEYS,
    AUDIENCE,
    GOOD,
    ISSUER,
    NEW_KEY,
    NOW,
    OTHER,
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
    segment,
    token,
    user_of,
    verifying,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PUBLIC_PEM = PRIVATE["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


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
