"""The command line. Each command imports what it needs when it runs: `--help` stays fast, `serve` small."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from uuid import UUID

    from llmrouter_server.runtime.dev_identity import RoleName

SETTINGS_ERROR = 2
TTL_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_TTL_S = 365 * 86400
PORT = click.IntRange(0, 65535)


def ttl_seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Return the seconds of a duration such as 90s, 30m, 12h or 7d."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
    seconds = int(match[1]) * TTL_UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_TTL_S:
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 30m, 12h or 7d, of at most a year")
    return seconds


home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".llmrouter"),
    envvar="LLMROUTER_HOME",
    show_default=True,
    show_envvar=True,
    help="Folder of the local stack's data, keys and logs.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="llmrouter-server", message="llmrouter %(version)s")
def main() -> None:
    """Decide, for each LLM request, which model of which provider to use."""


@main.command()
@home_option
@click.option(
    "--port", type=PORT, default=8080, show_default=True, help="Of the JSON API, behind Envoy; 0: a free one."
)
@click.option("--grpc-port", type=PORT, default=50051, show_default=True, help="Of the gRPC server; 0: a free one.")
@click.option("--metrics-port", type=PORT, default=9464, show_default=True, help="For Prometheus; 0: a free one.")
def up(home: Path, port: int, grpc_port: int, metrics_port: int) -> None:
    """Run everything on this machine until Ctrl-C: Postgres, the server and Envoy.

    All of it listens on 127.0.0.1 only. The data stays in the folder from run to run. Prints tokens and commands to
    try it with, then `ready`. For development: production is `migrate` and `serve`.
    """
    from llmrouter_server.runtime import local_up
    from llmrouter_server.runtime.local_stack import Ports

    sys.exit(local_up.run(home, Ports(http=port, grpc=grpc_port, metrics=metrics_port)))


@main.command()
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Server processes.")
def serve(workers: int) -> None:
    """Run the gRPC server until SIGTERM, which drains it.

    Settings come from the environment; required are DATABASE_URL, BYOK_ENCRYPTION_KEY, AUTH_JWKS, AUTH_ISSUER and
    AUTH_AUDIENCE. Exits with 2 when one is missing or malformed, with 1 when it cannot start.
    """
    from llmrouter_server.config import Settings, SettingsError

    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        fail(f"cannot start: {error}", SETTINGS_ERROR)
    from llmrouter_server import app

    sys.exit(app.serve(settings, workers))


@main.command()
def migrate() -> None:
    """Bring the database at DATABASE_URL to this release's schema, and seed it.

    Safe to run again, and by several at once. Exits with 1 when it fails, and says why.
    """
    import asyncio

    from llmrouter_server.runtime import migrations

    database_url = os.environ.get("DATABASE_URL", "").strip()
    if not database_url:
        fail("DATABASE_URL is required and missing")
    try:
        asyncio.run(migrations.migrate(database_url, say=click.echo))
    except migrations.MigrationError as error:
        fail(str(error))


@main.command()
@click.option("--role", type=click.Choice(["user", "admin", "service"]), default="user", show_default=True)
@click.option("--user", type=click.UUID, help="Whom the token is for.  [default: always the same one for each role]")
@click.option(
    "--ttl",
    callback=ttl_seconds,
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long it is good: 90s, 30m, 12h, 7d.",
)
@home_option
def token(role: RoleName, user: UUID | None, ttl: int, home: Path) -> None:
    """Print a development token that the stack of `llmrouter up` accepts."""
    from llmrouter_server.runtime.dev_identity import DevIdentity, IdentityError

    try:
        identity = DevIdentity.load(home.absolute() / "identity")
    except IdentityError as error:
        fail(str(error))
    click.echo(identity.mint(role, user, ttl))


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Say it in one line on stderr and exit."""
    click.echo(f"llmrouter: {message}", err=True)
    sys.exit(exit_code)
