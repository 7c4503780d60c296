from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

import http_json
from as_nobody import run_as_nobody
from llmrouter_server.runtime import local_stack
from llmrouter_server.runtime.local_ports import holder_of
from llmrouter_server.runtime.local_process import MAX_LOG_BYTES, is_alive
from llmrouter_server.runtime.local_stack import LocalStack, LocalStackError, Ports
from up_process import FREE_PORTS, READY_TIMEOUT_S, UpProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmrouter_server.runtime.dev_identity import RoleName

AS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not AS_ROOT, reason="only root can try it as another account")
WARM_START_S = 15.0
"""On a machine that has other work to do too; so one of MOST_STARTS must be that quick."""
MOST_STARTS = 3
FREE = Ports(http=0, grpc=0, metrics=0)


async def test_the_printed_commands_work_as_they_are(open_folder: Path) -> None:
    async with UpProcess(open_folder / "home") as up:
        await up.ready()
        curls = [line for line in up.lines if line.startswith("curl ")]
        grpcurls = [line for line in up.lines if line.startswith("grpcurl ")]
        assert curls
        assert grpcurls
        programs = [(curls, "--fail --silent --show-error"), (grpcurls, "-max-time 10")]
        for lines, options in programs:
            program = lines[0].split()[0]
            if shutil.which(program) is None:
                continue
            for line in lines:
                command = line.replace(program, f"{program} {options}", 1)
                done = await asyncio.to_thread(
                    subprocess.run, command, shell=True, capture_output=True, text=True, timeout=30, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                assert done.stdout.startswith("{")


async def test_ctrl_c_stops_everything(open_folder: Path) -> None:
    async with UpProcess(open_folder / "home") as up:
        await up.ready()
        up.signal_group(signal.SIGINT)
        assert await up.end() == 0
        await up.nothing_left(timeout_s=1)
        assert not [line for line in up.lines if "Traceback" in line]


async def test_sigterm_while_it_starts_stops_everything(open_folder: Path) -> None:
    async with UpProcess(open_folder / "home") as up:
        await up.line("Postgres is ready", READY_TIMEOUT_S)
        up.process.terminate()
        assert await up.end() == 0
    pid_file = open_folder / "home" / "postgres" / "data" / "postmaster.pid"
    assert not pid_file.exists()


async def test_kill_9_leaves_no_process_and_the_next_start_has_the_data(open_folder: Path) -> None:
    async with UpProcess(open_folder / "home") as up:
        await up.ready()
        token = up.token("user")
        changed = await asyncio.to_thread(
            http_json.call, "PUT", f"{up.url()}/settings", token=token, body={"monthly_budget_usd": 12.5}
        )
        assert changed.status == 200
        await kill(up)
    for _ in range(MOST_STARTS):
        started = time.monotonic()
        async with UpProcess(open_folder / "home") as up:
            await up.ready()
            took_s = time.monotonic() - started
            kept = await asyncio.to_thread(http_json.call, "GET", f"{up.url()}/settings", token=token)
            assert kept.json["monthly_budget_usd"] == 12.5
            await kill(up)
        if took_s < WARM_START_S:
            break
    assert took_s < WARM_START_S


async def kill(up: UpProcess) -> None:
    """Kill it, and wait until nothing of it is left."""
    up.signal_group(signal.SIGKILL)
    await up.process.wait()
    await up.nothing_left()


@pytest.mark.parametrize(
    ("part", "name"),
    [("llmrouter_server serve", "the server"), ("envoy.yaml", "Envoy"), ("listen_addresses", "postgres")],
)
async def test_a_part_that_dies_is_named_and_stops_the_rest(open_folder: Path, part: str, name: str) -> None:
    async with UpProcess(open_folder / "home") as up:
        await up.ready()
        os.kill(up.pid_of(part), signal.SIGKILL)
        assert await up.end() == 1
        await up.nothing_left(timeout_s=1)
        assert [line for line in up.lines if line.startswith(f"llmrouter: {name} ended; the last lines of")]


async def test_a_second_one_on_the_same_folder_is_refused(open_folder: Path) -> None:
    async with UpProcess(open_folder / "home") as first:
        await first.line("Postgres is ready", READY_TIMEOUT_S)
        async with UpProcess(open_folder / "home") as second:
            assert await second.end() == 1
            assert second.lines == [f"llmrouter: already running in {open_folder / 'home'} (pid {first.process.pid})"]


@pytest.mark.parametrize("flag", ["--port", "--grpc-port", "--metrics-port"])
async def test_a_busy_port_is_named(open_folder: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        options = list(FREE_PORTS)
        options[options.index(flag) + 1] = str(port)
        async with UpProcess(open_folder / "home", *options) as up:
            assert await up.end() == 1
        holder = holder_of(port)
        by = f" by {holder}" if holder else ""
        assert up.lines == [
            f"llmrouter: port {port} is taken{by}: stop that, or choose another: .venv/bin/llmrouter up {flag} PORT"
        ]


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
async def test_a_folder_closed_to_writing_is_named(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o500)
    async with UpProcess(closed / "home") as up:
        assert await up.end() == 1
    assert up.lines == [f"llmrouter: this account may not write to {closed / 'home'}"]


RUN_COMMAND = "import sys; from llmrouter_server.cli import main; main(sys.argv[1:])"
RUN_STACK = """
import asyncio, sys
from pathlib import Path
from llmrouter_server.runtime.local_stack import LocalStack, Ports

async def main():
    async with LocalStack(Path(sys.argv[1]), ports=Ports(http=0, grpc=0, metrics=0), durable=False) as stack:
        print(len(stack.pids), "processes")

asyncio.run(main())
"""


@only_as_root
def test_a_folder_closed_to_an_ordinary_user_is_named(open_folder: Path) -> None:
    closed = str(open_folder / "home")
    done = run_as_nobody(RUN_COMMAND, "up", "--home", closed, *FREE_PORTS, home=open_folder / "nobody")
    assert (done.returncode, done.stderr) == (1, f"llmrouter: this account may not write to {closed}\n")


@only_as_root
def test_an_ordinary_user_can_run_it_too(open_folder: Path) -> None:
    home = open_folder / "nobody"
    done = run_as_nobody(RUN_STACK, str(home / "stack"), home=home)
    assert (done.stdout, done.stderr) == ("3 processes\n", "")


async def test_a_file_in_the_folders_place_is_named(open_folder: Path) -> None:
    (open_folder / "home").write_text("not a folder")
    stack = LocalStack(open_folder / "home", ports=FREE, durable=False)
    with pytest.raises(LocalStackError, match="home cannot be used"):
        await stack.start()


async def test_an_envoy_that_cannot_run_is_named(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = open_folder / "envoy"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    monkeypatch.setattr(local_stack, "envoy_command", lambda _: [str(broken)])
    stack = LocalStack(open_folder / "home", ports=FREE, durable=False)
    with pytest.raises(LocalStackError, match=r"Envoy ended; .*\n.*cannot run"):
        await stack.start()
    assert not stack.pids


async def test_a_long_log_is_set_aside(open_folder: Path) -> None:
    stack = LocalStack(open_folder / "home", ports=FREE, durable=False)
    logs = open_folder / "home" / "logs"
    logs.mkdir(parents=True)
    for name in ("server.log", "access.log"):
        (logs / name).touch()
        os.truncate(logs / name, MAX_LOG_BYTES + 1)
    async with stack:
        for name in ("server.log", "access.log"):
            assert (logs / f"{name}.old").stat().st_size > MAX_LOG_BYTES
            assert (logs / name).stat().st_size < MAX_LOG_BYTES


async def test_a_long_path_is_no_obstacle(open_folder: Path) -> None:
    deep = open_folder.joinpath(*["a-long-name-of-a-folder"] * 6)
    async with LocalStack(deep, ports=FREE, durable=False) as stack:
        assert (await health(stack)) == 200


async def health(stack: LocalStack) -> int:
    answer = await asyncio.to_thread(http_json.call, "GET", f"http://127.0.0.1:{stack.ports.http}/healthz")
    return answer.status


async def status_of(stack: LocalStack, token: str) -> int:
    answer = await asyncio.to_thread(http_json.call, "GET", f"{stack.base_url}/models", token=token)
    return answer.status


async def test_every_role_is_known_to_envoy_and_the_server(stack: LocalStack, tokens: Mapping[RoleName, str]) -> None:
    for token in tokens.values():
        assert await status_of(stack, token) == 200
    assert await status_of(stack, tokens["user"][:-4]) == 401


async def test_nothing_secret_is_open_to_others(stack: LocalStack) -> None:
    for name in ("byok.key", "identity/private_key.pem", "postgres/password", "logs/server.log", "envoy-admin.sock"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0


async def test_metrics_are_served(stack: LocalStack) -> None:
    answer = await asyncio.to_thread(http_json.call, "GET", stack.metrics_url)
    assert answer.status == 200


async def test_the_server_can_be_killed_and_started_again(stack: LocalStack, tokens: Mapping[RoleName, str]) -> None:
    before = stack.server.pid
    await stack.kill_server()
    assert not is_alive(before)
    assert await status_of(stack, tokens["user"]) == 503
    await stack.start_server()
    await stack.wait_ready()
    async with asyncio.timeout(30):  # Envoy may still hear of checks that failed before
        while await status_of(stack, tokens["user"]) != 200:
            await asyncio.sleep(0.1)


async def test_postgres_can_be_stopped_and_started_again(stack: LocalStack) -> None:
    url = stack.database_url
    await stack.stop_postgres()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncpg.connect(url, timeout=5)
    await until_database_up(stack, 0)
    await stack.start_postgres()
    assert stack.database_url == url
    connection = await asyncpg.connect(url, timeout=5)
    assert await connection.fetchval("select count(*) from llm_models") == 21
    await connection.close()
    await until_database_up(stack, 1)
    await stack.wait_ready()


async def until_database_up(stack: LocalStack, is_up: int) -> None:
    """Wait until the server knows that Postgres is there, or is away: before, Envoy may know nothing of it either."""
    async with asyncio.timeout(30):
        while True:
            metrics = await asyncio.to_thread(http_json.call, "GET", stack.metrics_url)
            if f"\nllmrouter_database_up {is_up}.0\n" in metrics.json:
                return
            await asyncio.sleep(0.1)
