"""Typed settings, read once from the environment. Nothing else in the server reads the environment."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

MAX_SECONDS = 3600
MAX_COUNT = 1000
MAX_CACHED_USERS = 10_000_000
MIN_RETENTION_DAYS, MAX_RETENTION_DAYS = 62, 36_500
POOL_MIN, POOL_MAX = 5, 20
LEAST_POOL = 2
"""Maintenance holds one connection while its jobs use others."""
FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


class SettingsError(Exception):
    """One or more settings are missing or malformed; the message names every one of them."""


def _text(value: str) -> str:
    return value


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"must be a number of seconds above 0, at most {MAX_SECONDS}")
    return seconds


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= MAX_COUNT:
        raise ValueError(f"must be a whole number from 1 to {MAX_COUNT}")
    return int(value)


def _users(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,8}", value) or not 1 <= int(value) <= MAX_CACHED_USERS:
        raise ValueError(f"must be a whole number from 1 to {MAX_CACHED_USERS}")
    return int(value)


def _retention_days(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not MIN_RETENTION_DAYS <= int(value) <= MAX_RETENTION_DAYS:
        raise ValueError(f"must be a whole number from {MIN_RETENTION_DAYS} to {MAX_RETENTION_DAYS}")
    return int(value)


def _switch(value: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def _address(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):\d{1,5}", value) or int(value.rpartition(":")[2]) > 65535:  # noqa: PLR2004
        raise ValueError("must be HOST:PORT, for instance 0.0.0.0:50051")
    return value


def _collector(value: str) -> str:
    try:
        url = urlsplit(value)
        is_good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_good = False
    if not is_good or re.search(r"[\s?#]", value):
        raise ValueError("must be an http or https URL, for instance http://localhost:4318")
    return value.rstrip("/")


def _database_url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    return value


def encryption_keys(value: str) -> tuple[str, ...]:
    """Read the Fernet keys of BYOK_ENCRYPTION_KEY; ValueError says what is wrong, without the keys."""
    keys = tuple(key.strip() for key in value.split(",") if key.strip())
    for position, key in enumerate(keys, start=1):
        if not FERNET_KEY.fullmatch(key):
            raise ValueError(f"key {position} of {len(keys)} is no Fernet key (32 bytes, URL-safe base64)")
    if not keys:
        raise ValueError("holds no key")
    return keys


def _file(value: str) -> Path:
    return Path(value)


def _gateway_secret(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{32,512}", value):
        raise ValueError("must be 32 to 512 printable ASCII characters without spaces")
    return value


def _jwks(value: str) -> str:
    if value.startswith(("https://", "http://")):
        return value
    try:
        is_file = Path(value).is_file()
    except OSError:  # far too long for a path: the key set itself, perhaps
        is_file = False
    if not is_file:
        raise ValueError("must be a URL, or the path of a file that exists")
    return value


def _claim_path(value: str) -> tuple[str, ...]:
    path = tuple(value.split("."))
    if not all(path):
        raise ValueError("must be names with dots between them, for instance realm_access.roles")
    return path


def _setting(variable: str, parse: Callable[[str], T], *, secret: bool = False, **default: Any) -> Any:  # noqa: ANN401 - dataclasses.field is typed so
    return field(repr=not secret, metadata={"variable": variable, "parse": parse}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of `llmrouter serve`. Those without a default are required. Secrets stay out of `repr`."""

    database_url: str = _setting("DATABASE_URL", _database_url, secret=True)
    byok_encryption_keys: tuple[str, ...] = _setting("BYOK_ENCRYPTION_KEY", encryption_keys, secret=True)
    auth_jwks: str = _setting("AUTH_JWKS", _jwks)
    """A JWKS file's path or URL."""
    auth_issuer: str = _setting("AUTH_ISSUER", _text)
    auth_audience: str = _setting("AUTH_AUDIENCE", _text)
    auth_roles_claim: tuple[str, ...] = _setting("AUTH_ROLES_CLAIM", _claim_path, default=("roles",))
    """Path of the claim that lists the roles; `realm_access.roles` for Keycloak."""
    listen_address: str = _setting("LISTEN_ADDRESS", _address, default="127.0.0.1:50051")
    reuse_port: bool = _setting("LISTEN_REUSE_PORT", _switch, default=False)
    """Whether several processes may share listen_address; `--workers` sets it for its own."""
    metrics_address: str | None = _setting("METRICS_ADDRESS", _address, default=None)
    """Where Prometheus reads the metrics; none when absent."""
    otlp_endpoint: str | None = _setting("OTEL_EXPORTER_OTLP_ENDPOINT", _collector, secret=True, default=None)
    """Where an OpenTelemetry collector takes traces by OTLP over HTTP; none are made when absent."""
    db_pool_min: int = _setting("DB_POOL_MIN", _count, default=POOL_MIN)
    db_pool_max: int = _setting("DB_POOL_MAX", _count, default=POOL_MAX)
    request_timeout_s: float = _setting("REQUEST_TIMEOUT_SECONDS", _seconds, default=10.0)
    """The deadline of a call that brings none, and the longest one allowed."""
    drain_notice_s: float = _setting("DRAIN_NOTICE_SECONDS", _seconds, default=3.0)
    """After SIGTERM, how long health checks say that no more calls are wanted before calls are refused."""
    drain_timeout_s: float = _setting("DRAIN_TIMEOUT_SECONDS", _seconds, default=25.0)
    """How long calls in flight may then take to end."""
    cached_users: int = _setting("CACHED_USERS", _users, default=100_000)
    """How many users' settings, keys and spend each process keeps in memory."""
    provider_rest_s: float = _setting("PROVIDER_REST_SECONDS", _seconds, default=60.0)
    """How long an unhealthy provider is left alone before it is tried again."""
    usage_retention_days: int = _setting("USAGE_RETENTION_DAYS", _retention_days, default=400)
    """How long single usage records are kept; whole months, sums stay for ever."""
    gateway_address: str | None = _setting("GATEWAY_ADDRESS", _address, default=None)
    """Where Envoy asks what to do with chat requests; without it there is no data plane. For Envoy alone."""
    gateway_secret: str = _setting("GATEWAY_SECRET", _gateway_secret, secret=True, default="")
    """What Envoy must know to ask; required with gateway_address."""
    gateway_journal: Path | None = _setting("GATEWAY_JOURNAL", _file, default=None)  # noqa: RUF009 - a field, as all
    """Envoy's journal of chat requests, where this machine has it: what was missed is read from it every 20 s."""
    gateway_stream_s: float = _setting("GATEWAY_STREAM_SECONDS", _seconds, default=30.0)
    """How long a provider's stream may be silent; four times that for models that reason. Envoy's to keep: the same as
    its gateway_silence_s."""
    gateway_answer_s: float = _setting("GATEWAY_ANSWER_SECONDS", _seconds, default=300.0)
    """How long a provider may take for an answer that comes in one piece."""
    gateway_concurrency: int = _setting("GATEWAY_CONCURRENCY", _count, default=100)
    """How many chat requests a user may have under way at once."""
    allow_private_endpoints: bool = _setting("ALLOW_PRIVATE_ENDPOINTS", _switch, default=False)
    """Whether a provider's endpoint may be a loopback, private or link-local address, and a key be verified at one."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read the settings; SettingsError names every variable that is missing or malformed."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for setting in fields(cls):
            variable, raw = setting.metadata["variable"], env.get(setting.metadata["variable"], "").strip()
            try:
                if raw:
                    values[setting.name] = setting.metadata["parse"](raw)
                elif setting.name in _REQUIRED:
                    problems.append(f"{variable} is required and missing")
            except ValueError as error:
                problems.append(f"{variable} {error}")
        least, most = values.get("db_pool_min", POOL_MIN), values.get("db_pool_max", POOL_MAX)
        if least > most:
            problems.append("DB_POOL_MIN is larger than DB_POOL_MAX")
        if "gateway_address" in values and not env.get("GATEWAY_SECRET", "").strip():
            problems.append("GATEWAY_SECRET is required with GATEWAY_ADDRESS")
        if most < LEAST_POOL:
            problems.append(f"DB_POOL_MAX must be at least {LEAST_POOL}")
        if problems:
            raise SettingsError("; ".join(problems))
        return cls(**values)


_REQUIRED = {"database_url", "byok_encryption_keys", "auth_jwks", "auth_issuer", "auth_audience"}
