"""The Go module as its users get it: packed, served by a module proxy, and used by programs of another module."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import zipfile
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from conftest import User
    from llmrouter_server.runtime.local_stack import LocalStack

SOURCE = Path(__file__).resolve().parents[2] / "clients" / "go"
CHECKS = Path(__file__).parent / "go" / "checks.go"
MODULE = "llmrouter.internal/llmrouter"
README = SOURCE / "README.md"
NOT_PACKED = {"buf.gen.yaml", "generate.mod", "generate.sum"}
TIMEOUT_S = 240.0
CANNOT_BE_HAD = ("dial tcp", "i/o timeout", "TLS handshake timeout", "connection refused", "requires go >=")
"""How Go says that it cannot get at its module proxy, or is too old."""


class GoError(Exception):
    """Go failed; the message is what it said."""


async def go(folder: Path, *arguments: str, program: str = "go", **environment: str) -> str:
    """Run Go in a folder and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, cwd=folder, env=os.environ | environment, stdout=PIPE, stderr=PIPE
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise GoError(errors.decode(errors="replace"))
    return output.decode()


@pytest.fixture(scope="module")
async def ready() -> None:
    """Skip without a Go that has, or can get, what the module needs."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    try:
        await go(SOURCE, "mod", "download")
    except GoError as error:
        if any(words in str(error) for words in CANNOT_BE_HAD):
            pytest.skip(f"Go or its module proxy cannot be had: {error}")
        raise


def pack(folder: Path) -> str:
    """Write the module as a proxy serves it, and return its version, which is another one for other contents."""
    files = {
        file.relative_to(SOURCE).as_posix(): file.read_bytes()
        for file in sorted(SOURCE.rglob("*"))
        if file.is_file() and file.name not in NOT_PACKED
    }
    version = f"v0.0.0-20260101000000-{hashlib.sha256(repr(files).encode()).hexdigest()[:12]}"
    served = folder / MODULE / "@v"
    served.mkdir(parents=True)
    (served / "list").write_text("")
    (served / f"{version}.info").write_text(json.dumps({"Version": version, "Time": "2026-01-01T00:00:00Z"}))
    (served / f"{version}.mod").write_bytes(files["go.mod"])
    with zipfile.ZipFile(served / f"{version}.zip", "w") as packed:
        for name, content in files.items():
            packed.writestr(f"{MODULE}@{version}/{name}", content)
    return version


class Consumer(NamedTuple):
    """A module of its own that requires the packed one."""

    folder: Path
    environment: Mapping[str, str]

    async def run(self, source: str, **environment: str) -> str:
        """Build a program of this source, run it, and return what it prints."""
        (self.folder / "main.go").write_text(source)
        await go(self.folder, "build", "-o", "program", ".", **self.environment)
        return await go(self.folder, program=str(self.folder / "program"), **environment)


@pytest.fixture(scope="module")
async def consumer(ready: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Consumer]:  # noqa: ARG001
    proxy, folder = tmp_path_factory.mktemp("proxy"), tmp_path_factory.mktemp("consumer")
    version = pack(proxy)
    others, cache = (await go(SOURCE, "env", "GOPROXY", "GOMODCACHE")).split()
    environment = {"GOPROXY": f"file://{proxy},{others}", "GONOSUMDB": MODULE, "GOFLAGS": "-mod=mod"}
    await go(folder, "mod", "init", "example.com/consumer", **environment)
    await go(folder, "get", f"{MODULE}@{version}", **environment)
    yield Consumer(folder, environment)
    unpacked = Path(cache) / f"{MODULE}@{version}"
    for each in (unpacked, *unpacked.rglob("*")):
        if each.is_dir():
            each.chmod(0o755)  # Go makes them read-only
    shutil.rmtree(unpacked)
    for each in (Path(cache) / "cache" / "download" / MODULE / "@v").glob(f"{version}.*"):
        each.unlink(missing_ok=True)


def program_in_the_readme() -> str:
    [program] = re.findall(r"```go\n(.*?)```", README.read_text(), re.DOTALL)
    assert isinstance(program, str)
    return program


def test_the_first_decision_takes_five_lines() -> None:
    body = program_in_the_readme().partition("func main() {\n")[2].splitlines()
    [decision] = [number for number, line in enumerate(body, start=1) if ".Route(" in line]
    assert decision <= 5


async def test_the_program_in_the_readme_prints_a_decision(
    consumer: Consumer, stack: LocalStack, new_user: Callable[..., User]
) -> None:
    program = program_in_the_readme()
    assert "127.0.0.1:50051" in program
    printed = await consumer.run(program.replace("127.0.0.1:50051", stack.grpc_address), TOKEN=new_user().token)
    assert printed == "Local vLLM Qwen/Qwen2.5-32B-Instruct <nil>\n"


async def test_what_a_program_finds(consumer: Consumer, stack: LocalStack, new_user: Callable[..., User]) -> None:
    printed = await consumer.run(CHECKS.read_text(), ADDRESS=stack.grpc_address, TOKEN=new_user().token)
    found = json.loads(printed)
    assert found.pop("csv").startswith("occurred_at,usage_id,")
    assert found.pop("keyless").endswith("the token store is closed")
    assert found == {"models": 9, "refused": "ROLE_REQUIRED", "asked": 2, "nobody": True}


async def test_the_modules_own_tests_pass(ready: None) -> None:  # noqa: ARG001
    await go(SOURCE, "test", "./...")
    assert await go(SOURCE, "-l", ".", program="gofmt") == ""
