"""Settings from the environment: what is missing or malformed is told, all of it at once, and no secret is shown."""

from __future__ import annotations

import dataclasses
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from llmrouter_server.config import Settings, SettingsError

KEY, OLD_KEY = (urlsafe_b64encode(bytes(numbers)).decode() for numbers in (range(32), range(100, 132)))
DATABASE_URL = "postgresql://router:correct-horse@db.example.com:5432/router"
SECRET = "a-secret-of-at-least-32-characters"
REQUIRED = {
    "DATABASE_URL": DATABASE_URL,
    "BYOK_ENCRYPTION_KEY": KEY,
    "AUTH_JWKS": "https://id.example.com/jwks.json",
    "AUTH_ISSUER": "https://id.example.com",
    "AUTH_AUDIENCE": "llmrouter",
}

# variable, then values that are malformed
MALFORMED = {
    "DATABASE_URL": ["db.example.com", "mysql://db.example.com/x", "postgresql:/db", "POSTGRESQL"],
    "BYOK_ENCRYPTION_KEY": ["secret", f"{KEY},secret", f"secret,{KEY}", KEY[:-4], KEY + KEY, "ключ", ",", " , "],
    "AUTH_JWKS": ["/no/such/file.json", "ftp://id.example.com/jwks", "file:///jwks.json", "/"],
    "LISTEN_ADDRESS": [
        "50051", "localhost", ":50051", "0.0.0.0:", "0.0.0.0:65536", "0.0.0.0:-1", "a b:1", "h:1/x", "::1:50051",
        "http://h:1", "h:x", "h:1\nh:2",
    ],
    "LISTEN_REUSE_PORT": ["maybe", "2", "on", "truee"],
    "METRICS_ADDRESS": ["9464", "localhost", "localhost:99999"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": [
        "collector:4318", "collector", "grpc://collector:4317", "http://", "http://:4318", "http://collector:65536",
        "http://collector:4318?x=1", "http://collector:4318#x", "http://colle ctor", "http://a\nb", "http://user:secret@",
    ],
    "DB_POOL_MIN": ["0", "-1", "1001", "x", "1.5", "1e2", "9" * 5000],
    "DB_POOL_MAX": ["0", "-1", "1001", "x", "1.5", "1e2"],
    "REQUEST_TIMEOUT_SECONDS": ["0", "-1", "3601", "x", "nan", "inf", "-inf", "10s"],
    "DRAIN_NOTICE_SECONDS": ["0", "-1", "3601", "x", "nan", "inf"],
    "DRAIN_TIMEOUT_SECONDS": ["0", "-0.0", "3600.1", "x", "nan", "inf", "1,5"],
    "CACHED_USERS": ["0", "-1", "10000001", "x", "1e3"],
    "PROVIDER_REST_SECONDS": ["0", "-1", "3601", "x", "nan"],
    "USAGE_RETENTION_DAYS": ["61", "0", "36501", "x", "1.5"],
    "GATEWAY_ADDRESS": ["50052", "localhost", "localhost:99999"],
    "GATEWAY_SECRET": ["short", "x" * 31, "x" * 513, "with a space " * 4, "é" * 40],
    "GATEWAY_STREAM_SECONDS": ["0", "-1", "3601", "x", "nan"],
    "GATEWAY_ANSWER_SECONDS": ["0", "-1", "3601", "x", "inf"],
    "GATEWAY_CONCURRENCY": ["0", "-1", "1001", "x", "1.5"],
    "ALLOW_PRIVATE_ENDPOINTS": ["maybe", "2", "-", "none"],
}  # fmt: skip

# variable, value, setting, what it is read as
WELL_FORMED = [
    ("DATABASE_URL", "postgres://db/x", "database_url", "postgres://db/x"),
    ("DATABASE_URL", f"  {DATABASE_URL}\n", "database_url", DATABASE_URL),
    ("BYOK_ENCRYPTION_KEY", f"{KEY},{OLD_KEY}", "byok_encryption_keys", (KEY, OLD_KEY)),
    ("BYOK_ENCRYPTION_KEY", f" {KEY} , {OLD_KEY} ,", "byok_encryption_keys", (KEY, OLD_KEY)),
    ("AUTH_JWKS", "http://localhost:1/jwks", "auth_jwks", "http://localhost:1/jwks"),
    ("AUTH_ISSUER", "https://other.example.com", "auth_issuer", "https://other.example.com"),
    ("AUTH_AUDIENCE", "other", "auth_audience", "other"),
    ("AUTH_ROLES_CLAIM", "realm_access.roles", "auth_roles_claim", ("realm_access", "roles")),
    ("AUTH_ROLES_CLAIM", "groups", "auth_roles_claim", ("groups",)),
    ("LISTEN_ADDRESS", "0.0.0.0:50051", "listen_address", "0.0.0.0:50051"),
    ("LISTEN_ADDRESS", "[::]:65535", "listen_address", "[::]:65535"),
    ("LISTEN_ADDRESS", "my-host_1.example.com:0", "listen_address", "my-host_1.example.com:0"),
    ("LISTEN_REUSE_PORT", "true", "reuse_port", True),
    ("LISTEN_REUSE_PORT", "NO", "reuse_port", False),
    ("METRICS_ADDRESS", "0.0.0.0:9464", "metrics_address", "0.0.0.0:9464"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318", "otlp_endpoint", "http://localhost:4318"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example.com/tenant/", "otlp_endpoint", "https://c.example.com/tenant"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4318/", "otlp_endpoint", "http://[::1]:4318"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:word@c.example.com", "otlp_endpoint", "https://me:word@c.example.com"),
    ("DB_POOL_MIN", "1", "db_pool_min", 1),
    ("DB_POOL_MIN", "20", "db_pool_min", 20),
    ("DB_POOL_MAX", "1000", "db_pool_max", 1000),
    ("DB_POOL_MAX", "5", "db_pool_max", 5),
    ("REQUEST_TIMEOUT_SECONDS", "0.5", "request_timeout_s", 0.5),
    ("REQUEST_TIMEOUT_SECONDS", "3600", "request_timeout_s", 3600.0),
    ("DRAIN_NOTICE_SECONDS", "0.2", "drain_notice_s", 0.2),
    ("DRAIN_TIMEOUT_SECONDS", "1", "drain_timeout_s", 1.0),
    ("CACHED_USERS", "10000000", "cached_users", 10_000_000),
    ("PROVIDER_REST_SECONDS", "0.5", "provider_rest_s", 0.5),
    ("USAGE_RETENTION_DAYS", "62", "usage_retention_days", 62),
    ("GATEWAY_SECRET", SECRET, "gateway_secret", SECRET),
    ("GATEWAY_JOURNAL", "/var/log/gateway.log", "gateway_journal", Path("/var/log/gateway.log")),
    ("GATEWAY_STREAM_SECONDS", "1.5", "gateway_stream_s", 1.5),
    ("GATEWAY_ANSWER_SECONDS", "600", "gateway_answer_s", 600.0),
    ("GATEWAY_CONCURRENCY", "1000", "gateway_concurrency", 1000),
    ("ALLOW_PRIVATE_ENDPOINTS", "1", "allow_private_endpoints", True),
    ("ALLOW_PRIVATE_ENDPOINTS", "False", "allow_private_endpoints", False),
]


def problems(env: dict[str, str]) -> str:
    """Return what the settings say is wrong with the environment."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(env)
    return str(raised.value)


def test_the_tables_of_this_file_know_every_variable() -> None:
    variables = {setting.metadata["variable"] for setting in dataclasses.fields(Settings)}
    assert variables == {variable for variable, *_ in WELL_FORMED} | {"GATEWAY_ADDRESS"}
    assert variables - set(MALFORMED) == {"AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_ROLES_CLAIM", "GATEWAY_JOURNAL"}


def test_the_gateway_needs_an_address_and_a_secret() -> None:
    assert problems(REQUIRED | {"GATEWAY_ADDRESS": "h:1"}) == "GATEWAY_SECRET is required with GATEWAY_ADDRESS"
    settings = Settings.from_env(REQUIRED | {"GATEWAY_ADDRESS": "h:1", "GATEWAY_SECRET": SECRET})
    assert (settings.gateway_address, settings.gateway_secret) == ("h:1", SECRET)
    assert SECRET not in repr(settings)


def test_the_required_variables_are_enough_and_the_others_have_safe_defaults() -> None:
    settings = Settings.from_env(REQUIRED)
    assert dataclasses.asdict(settings) == {
        "database_url": DATABASE_URL,
        "byok_encryption_keys": (KEY,),
        "auth_jwks": "https://id.example.com/jwks.json",
        "auth_issuer": "https://id.example.com",
        "auth_audience": "llmrouter",
        "auth_roles_claim": ("roles",),
        "listen_address": "127.0.0.1:50051",
        "reuse_port": False,
        "metrics_address": None,
        "otlp_endpoint": None,
        "db_pool_min": 5,
        "db_pool_max": 20,
        "request_timeout_s": 10.0,
        "drain_notice_s": 3.0,
        "drain_timeout_s": 25.0,
        "cached_users": 100_000,
        "provider_rest_s": 60.0,
        "usage_retention_days": 400,
        "gateway_address": None,
        "gateway_secret": "",
        "gateway_journal": None,
        "gateway_stream_s": 30.0,
        "gateway_answer_s": 300.0,
        "gateway_concurrency": 100,
        "allow_private_endpoints": False,
    }


@pytest.mark.parametrize("variable", REQUIRED)
@pytest.mark.parametrize("value", [None, "", " \n"], ids=["absent", "empty", "blank"])
def test_a_required_variable_that_is_missing_is_named(variable: str, value: str | None) -> None:
    env = {name: text for name, text in REQUIRED.items() if name != variable}
    if value is not None:
        env[variable] = value
    assert problems(env) == f"{variable} is required and missing"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param(variable, value, id=f"{variable}={value[:40]}")
        for variable in MALFORMED
        for value in MALFORMED[variable]
    ],
)
def test_a_malformed_variable_is_named_and_nothing_else_is(variable: str, value: str) -> None:
    told = problems({**REQUIRED, variable: value})
    assert told.startswith(f"{variable} ")
    assert [name for name in (*REQUIRED, *MALFORMED) if name in told and name != variable] == []


@pytest.mark.parametrize(("variable", "value", "setting", "expected"), WELL_FORMED)
def test_a_well_formed_variable_is_read(variable: str, value: str, setting: str, expected: object) -> None:
    assert getattr(Settings.from_env({**REQUIRED, variable: value}), setting) == expected


@pytest.mark.parametrize("variable", [variable for variable in MALFORMED if variable not in REQUIRED])
def test_an_optional_variable_that_is_blank_is_as_if_absent(variable: str) -> None:
    assert Settings.from_env({**REQUIRED, variable: "  "}) == Settings.from_env(REQUIRED)


def test_a_key_set_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text("{}")
    assert Settings.from_env({**REQUIRED, "AUTH_JWKS": str(file)}).auth_jwks == str(file)
    assert "must be a URL, or the path of a file that exists" in problems({**REQUIRED, "AUTH_JWKS": str(tmp_path)})


def test_everything_missing_is_told_at_once() -> None:
    assert problems({}) == "; ".join(f"{variable} is required and missing" for variable in REQUIRED)


def test_everything_malformed_and_missing_is_told_at_once() -> None:
    told = problems({variable: values[0] for variable, values in MALFORMED.items()})
    for variable in (*MALFORMED, "AUTH_ISSUER", "AUTH_AUDIENCE"):
        assert f"{variable} " in told


def test_the_position_of_a_malformed_encryption_key_is_told() -> None:
    assert "key 2 of 3" in problems({**REQUIRED, "BYOK_ENCRYPTION_KEY": f"{KEY},nonsense,{OLD_KEY}"})


def test_a_pool_whose_least_is_more_than_its_most_is_refused() -> None:
    assert problems({**REQUIRED, "DB_POOL_MIN": "6", "DB_POOL_MAX": "5"}) == "DB_POOL_MIN is larger than DB_POOL_MAX"
    assert problems({**REQUIRED, "DB_POOL_MIN": "21"}) == "DB_POOL_MIN is larger than DB_POOL_MAX"
    assert Settings.from_env({**REQUIRED, "DB_POOL_MIN": "5", "DB_POOL_MAX": "5"}).db_pool_min == 5


def test_a_pool_of_one_connection_is_refused_since_maintenance_would_take_it() -> None:
    one = {**REQUIRED, "DB_POOL_MIN": "1", "DB_POOL_MAX": "1"}
    assert problems(one) == "DB_POOL_MAX must be at least 2"
    assert Settings.from_env({**one, "DB_POOL_MAX": "2"}).db_pool_max == 2


def test_a_pool_whose_least_is_more_than_its_most_is_told_with_everything_else() -> None:
    told = problems({"DB_POOL_MIN": "6", "DB_POOL_MAX": "5"})
    assert "DATABASE_URL is required" in told
    assert "DB_POOL_MIN is larger than DB_POOL_MAX" in told


def test_a_key_set_pasted_in_place_of_its_path_is_told_like_any_malformed_value() -> None:
    assert problems({**REQUIRED, "AUTH_JWKS": '{"keys": [' + '{"kty": "RSA"},' * 100}).startswith("AUTH_JWKS ")


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("DB_POOL_MAX", "whole number from 1 to 1000"),
        ("REQUEST_TIMEOUT_SECONDS", "number of seconds above 0, at most 3600"),
    ],
)
def test_a_number_that_is_none_is_told_what_it_must_be(variable: str, sentence: str) -> None:
    assert sentence in problems({**REQUIRED, variable: "many"})


@pytest.mark.parametrize("value", [".", "roles.", ".roles", "realm_access..roles"])
def test_a_roles_claim_with_an_empty_step_is_refused(value: str) -> None:
    assert problems({**REQUIRED, "AUTH_ROLES_CLAIM": value}).startswith("AUTH_ROLES_CLAIM ")


def test_secrets_are_not_in_the_repr() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:hush-hush@c.example.com"}
    settings = Settings.from_env({**REQUIRED, "BYOK_ENCRYPTION_KEY": f"{KEY},{OLD_KEY}", **endpoint})
    for shown in (repr(settings), str(settings), f"{settings}"):
        for secret in (KEY, OLD_KEY, DATABASE_URL, "correct-horse", "hush-hush"):
            assert secret not in shown
        assert "https://id.example.com/jwks.json" in shown  # what is no secret is there to be read


def test_no_problem_told_repeats_a_secret() -> None:
    told = problems(
        {"DATABASE_URL": "mysql://u:correct-horse@db/x", "BYOK_ENCRYPTION_KEY": f"{KEY},battery-staple,{OLD_KEY}"}
    )
    for secret in ("correct-horse", "battery-staple", KEY, OLD_KEY):
        assert secret not in told
