"""The command line. Each command imports what it needs when it runs: `--help` stays fast, `serve` small."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import contextlib
import os
import re
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmrouter_server.admin.options import LazyGroup, fail, home_option, three_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from llmrouter_server.runtime.dev_identity import RoleName

SETTINGS_ERROR = 2
TTL_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_TTL_S = 365 * 86400
PORT = click.IntRange(0, 65535)
GRPC_POLLING = "GRPC_EXPERIMENTS", "-event_engine_listener"
"""gRPC's own variable: the thread that hands over what came reads the sockets itself, as before there was an event
engine, and no pool of others wakes it up. A version that does not know the choice any more logs that."""


def ttl_seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    """Return the seconds of a duration such as 90s, 30m, 12h or 7d."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII)
    seconds = int(match[1]) * TTL_UNITS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_TTL_S:
        raise click.BadParameter(f"{value!r} is no duration such as 90s, 30m, 12h or 7d, of at most a year")
    return seconds


def month_start(_context: click.Context, _parameter: click.Parameter, value: str | None) -> date | None:
    """Return the first day of a month such as 2026-03."""
    if value is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}", value):
            return date.fromisoformat(f"{value}-01")
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is no month such as 2026-03")


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal while work is done; yields what to tell how many of how many are done."""
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield tell


@click.group(
    cls=LazyGroup,
    lazy={name: f"llmrouter_server.admin.{name}:{name}" for name in ("providers", "models", "rules", "usage")},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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
    if workers > 1:  # this process only looks after them: what they import is not for it to wait for, or to keep
        from llmrouter_server.runtime.workers import supervise

        sys.exit(supervise(workers, settings))
    os.environ.setdefault(*GRPC_POLLING)  # read when gRPC is imported; what the operator chose stays
    from llmrouter_server import app

    sys.exit(app.serve(settings))


@main.command()
@click.argument("journal", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--follow", is_flag=True, help="Go on every 20 s, until Ctrl-C.")
def reconcile(journal: Path, follow: bool) -> None:
    """Record what Envoy's JOURNAL of chat requests tells and the server has missed.

    For an Envoy whose journal no server sees (GATEWAY_JOURNAL): run it beside that Envoy. What is recorded already
    stays as it is. Needs DATABASE_URL.
    """
    import asyncio
    import signal

    from llmrouter_server.gateway.journal import reconcile_file
    from llmrouter_server.runtime.command import CommandError

    # Like Ctrl-C. In a container this is process 1, which the kernel spares a signal that it does not handle.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(reconcile_file(required_setting("DATABASE_URL"), journal, follow=follow, say=click.echo))
        except CommandError as error:
            fail(str(error))


@main.command()
def migrate() -> None:
    """Bring the database at DATABASE_URL to this release's schema, and seed it.

    Safe to run again, and by several at once. Exits with 1 when it fails, and says why.
    """
    import asyncio

    from llmrouter_server.runtime import migrations

    try:
        asyncio.run(migrations.migrate(required_setting("DATABASE_URL"), say=click.echo))
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


@main.group(
    cls=LazyGroup,
    lazy={
        "list": "llmrouter_server.admin.keys:list_keys",
        **{
            name: f"llmrouter_server.admin.keys:{name}"
            for name in ("store", "verify", "activate", "deactivate", "delete")
        },
    },
)
def keys() -> None:
    """Look after your own provider keys; with `rotate`, after everybody's."""


@keys.command()
def rotate() -> None:
    """Encrypt every stored key with the first encryption key, while the server runs.

    To change the key, let every replica know the new one behind the old one in BYOK_ENCRYPTION_KEY, then put it first
    everywhere, run this until nothing is rotated or replaced any more, then drop the old one. It can be stopped at any
    moment and run again. Exits with 1 when a key cannot be read.
    Needs DATABASE_URL and BYOK_ENCRYPTION_KEY.
    """
    import asyncio

    from llmrouter_server.byok.cipher import Cipher
    from llmrouter_server.byok.rotation import rotate as run_rotation
    from llmrouter_server.config import encryption_keys
    from llmrouter_server.runtime.command import CommandError

    database_url = required_setting("DATABASE_URL")
    try:
        cipher = Cipher(encryption_keys(required_setting("BYOK_ENCRYPTION_KEY")))
    except ValueError as error:
        fail(f"BYOK_ENCRYPTION_KEY {error}", SETTINGS_ERROR)
    try:
        with progress_bar("rotating") as progress:
            done = asyncio.run(run_rotation(database_url, cipher, progress=progress))
    except CommandError as error:
        fail(str(error))
    click.echo(f"{done.rotated} rotated, {done.current} were current, {done.replaced} were replaced meanwhile")
    for unreadable in done.unreadable:
        click.echo(f"cannot be decrypted: {unreadable.kind} {unreadable.id}", err=True)
    sys.exit(1 if done.unreadable else 0)


@main.group()
def audit() -> None:
    """Check the audit of key readings."""


@audit.command()
@click.option("--month", callback=month_start, metavar="YYYY-MM", help="Only this UTC month.  [default: all]")
def verify(month: date | None) -> None:
    """Find every edit, removal or gap in the record of who read which key.

    Prints the rows and the last hash of each month. Keep these hashes elsewhere: they show later whether a whole month
    was written anew. Exits with 1 when there is any problem. Needs DATABASE_URL.
    """
    import asyncio

    from llmrouter_server.audit.verify import verify as run_verification
    from llmrouter_server.runtime.command import CommandError

    try:
        with progress_bar("verifying") as progress:
            problems = asyncio.run(
                run_verification(required_setting("DATABASE_URL"), click.echo, month=month, progress=progress)
            )
    except CommandError as error:
        fail(str(error))
    click.echo(f"{problems} problems" if problems != 1 else "1 problem")
    sys.exit(1 if problems else 0)


@main.group()
def decisions() -> None:
    """Look into past routing decisions."""


@decisions.command()
@click.option(
    "--since",
    callback=ttl_seconds,
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How far back: 90s, 30m, 12h, 7d; decisions are kept 30 days.",
)
@click.option(
    "--weights",
    callback=three_weights,
    metavar="COST,LATENCY,QUALITY",
    help="Also tell which choices these weights would change, for instance 0.6,0.2,0.2.",
)
@click.option("--list", "list_changes", is_flag=True, help="List each choice that would change.")
def replay(since: int, weights: tuple[float, float, float] | None, list_changes: bool) -> None:
    """Make past decisions again from what is stored of them, and report any that differ: there must be none.

    Exits with 1 when any differs. Needs DATABASE_URL.
    """
    import asyncio

    from llmrouter_server.routing.replay import Change, replay_stored
    from llmrouter_server.routing.scoring import Weights
    from llmrouter_server.runtime.command import CommandError

    def tell(change: Change) -> None:
        before, after = change.before.model, change.after.model
        click.echo(
            f"{change.decision_id}: {before.provider_name} {before.model_name}"
            f" -> {after.provider_name} {after.model_name}"
        )

    try:
        done = asyncio.run(
            replay_stored(
                required_setting("DATABASE_URL"),
                seconds=since,
                weights=Weights(*weights) if weights else None,
                changed=tell if list_changes else lambda _: None,
            )
        )
    except CommandError as error:
        fail(str(error))
    for decision_id in done.differing:
        click.echo(f"differs: {decision_id}", err=True)
    click.echo(f"{done.replayed} decisions replayed, {len(done.differing)} differ")
    if done.without_snapshot:
        click.echo(f"{done.without_snapshot} could not be replayed: their catalogue snapshot is gone")
    if weights:
        click.echo(f"{done.changed} choices would change, by these sums:")
        click.echo(f"  cost {done.cost_usd:+.6f} US dollars, at the estimated tokens or a million each way")
        click.echo(f"  latency {done.latency_ms:+d} ms")
        click.echo(f"  quality rating {done.quality_rating:+.2f}")
    sys.exit(1 if done.differing else 0)


def required_setting(variable: str) -> str:
    """Return an environment variable; without it, say so and exit. Secrets are never options: `ps` would show them."""
    value = os.environ.get(variable, "").strip()
    if not value:
        fail(f"{variable} is required and missing")
    return value
