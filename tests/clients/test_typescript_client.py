"""The TypeScript client as its users have it: packed, installed into an empty folder, run in Node and in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import uuid
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmrouter_server.runtime.local_stack import LocalStack

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "clients" / "typescript"
CHECKS = Path(__file__).parent / "typescript"
INSTALL_S, RUN_S = 180.0, 60.0
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")
AWAY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")
"""How npm says that it cannot get at its registry."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


async def run(folder: Path, seconds: float, *command: str, given: str = "", **variables: str) -> tuple[int, str]:
    """Return the exit code and the output, or with code 0 what was written to standard output."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=os.environ | variables
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(given.encode()), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    return code, output.decode() + (errors.decode(errors="replace") if code else "")


async def succeed(folder: Path, seconds: float, *command: str, given: str = "", **variables: str) -> str:
    code, told = await run(folder, seconds, *command, given=given, **variables)
    assert code == 0, told
    return told


@pytest.fixture(scope="module")
async def built(request: pytest.FixtureRequest) -> Path:
    """A copy of the source with its locked tools, which are kept for as long as the lock file is the same."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = request.config.cache.mkdir("typescript-client")
    lock = (SOURCE / "package-lock.json").read_text()
    mark = folder / "installed"
    for name in ("src", "dist"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("package.json", "package-lock.json", "tsconfig.json", "README.md"):
        shutil.copy(SOURCE / name, folder)
    shutil.copytree(SOURCE / "src", folder / "src")
    if not mark.exists() or mark.read_text() != lock:
        code, told = await run(folder, INSTALL_S, "npm", "ci", *QUIET)
        if code and any(word in told for word in AWAY):
            pytest.skip(f"npm cannot get at its registry, and the tools are not here yet: {told[-500:]}")
        assert code == 0, told
        mark.write_text(lock)
    return folder


@pytest.fixture(scope="module")
async def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the packed client was installed, and nothing else."""
    folder = tmp_path_factory.mktemp("newcomer")
    packed = await succeed(built, RUN_S, "npm", "pack", "--json", "--pack-destination", str(folder))
    [file] = json.loads(packed[packed.index("[") :])
    await succeed(folder, RUN_S, "npm", "init", "--yes", "--init-type=module")
    await succeed(folder, INSTALL_S, "npm", "install", *QUIET, "--offline", f"./{file['filename']}")
    for check in CHECKS.iterdir():
        shutil.copy(check, folder)
    return folder


def assert_user(found: Mapping[str, Any]) -> None:
    """What asUser of checks.mjs must have found, whoever it was."""
    assert found["chosen"]
    assert found["explained"] == len(found["models"]) == len(set(found["models"])) > found["firstPage"] == 4
    assert found["sameDecision"]
    assert found["sameModel"]
    assert found["keys"] == ["sk-typ"]
    assert found["gone"] == {}
    assert found["strategy"] == "cost_optimized"
    assert found["csv"].startswith("occurred_at,")
    invalid = found["invalid"]
    assert (invalid["name"], invalid["reason"], invalid["status"]) == ("LlmRouterError", "INVALID_FIELD", 400)
    assert invalid["fields"] == ["required_capabilities", "fallback_count"]
    assert invalid["requestId"]
    assert found["narrowed"] is False
    assert found["notFound"]["reason"] == "RESOURCE_NOT_FOUND"
    assert found["notFound"]["metadata"] == {"resource": "model"}
    assert (found["forbidden"]["reason"], found["forbidden"]["status"]) == ("ROLE_REQUIRED", 403)
    assert found["requestId"] == "mine-1"
    assert found["aborted"] == "AbortError"


async def test_the_readmes_examples_are_true_and_the_first_has_at_most_five_lines(
    stack: LocalStack, installed: Path
) -> None:
    examples = re.findall(r"```js\n(.+?)```", (SOURCE / "README.md").read_text(), re.DOTALL)
    first, session, lists, errors = examples
    assert len(first.strip().splitlines()) <= 5
    assert "new LlmRouter();" in session  # as the browser's tests make it
    for name, more in (("first", ""), ("all", lists + errors)):
        others = 'import { hasReason, listModels, updateSettings } from "llmrouter";\n' if more else ""
        program = (others + first + more).replace("http://127.0.0.1:8080", f"http://127.0.0.1:{stack.ports.http}")
        (installed / f"{name}.mjs").write_text(program)
        told = await succeed(installed, RUN_S, "node", f"{name}.mjs", LLMROUTER_TOKEN=stack.identity.mint("user"))
        decision, *rest = told.splitlines()
        assert re.fullmatch(r".+: .+ \(decision [0-9a-f-]{36}\)", decision)
    assert "Claude 3 Opus" in rest[:-1]
    assert rest[-1].startswith("monthly_budget_usd must be ")


@pytest.fixture(scope="module")
async def in_node(stack: LocalStack, installed: Path) -> Mapping[str, Any]:
    given = {
        "url": f"http://127.0.0.1:{stack.ports.http}",
        "user": stack.identity.mint("user", uuid.uuid4()),
        "admin": stack.identity.mint("admin"),
        "name": f"of TypeScript {uuid.uuid4()}",
    }
    found: Mapping[str, Any] = json.loads(await succeed(installed, RUN_S, "node", "node.mjs", given=json.dumps(given)))
    return found


def test_a_user_in_node(in_node: Mapping[str, Any]) -> None:
    assert_user(in_node["user"])


def test_an_admin_in_node(in_node: Mapping[str, Any]) -> None:
    found = in_node["admin"]
    assert found["priority"] == 9
    assert (found["taken"]["reason"], found["taken"]["metadata"]["field"]) == ("ALREADY_EXISTS", "name")
    assert (found["stale"]["reason"], found["stale"]["status"]) == ("ETAG_MISMATCH", 409)


def test_a_refused_token_is_asked_for_once_more(in_node: Mapping[str, Any]) -> None:
    found = in_node["stranger"]
    assert found["refreshed"] == "BALANCED"
    assert found["asked"] == [False, True]
    assert (found["refused"]["reason"], found["refused"]["status"]) == ("UNAUTHENTICATED", 401)


def test_deadlines_and_failures_without_an_answer(in_node: Mapping[str, Any]) -> None:
    found = in_node["stranger"]
    assert (found["late"]["reason"], found["late"]["status"]) == ("DEADLINE_EXCEEDED", 0)
    assert (found["away"]["reason"], found["away"]["status"]) == ("UNAVAILABLE", 0)
    assert found["noPath"] == "TypeError"


@pytest.mark.parametrize(("how", "reason", "status"), [("busy", "UNKNOWN", 503), ("broken", "UNAVAILABLE", 0)])
def test_only_reads_are_sent_again(in_node: Mapping[str, Any], how: str, reason: str, status: int) -> None:
    found = in_node["stranger"][how]
    assert found["sent"] == "GET GET GET POST"
    assert {(found[call]["reason"], found[call]["status"]) for call in ("read", "write")} == {(reason, status)}


def test_an_answer_that_is_not_the_apis_is_told_as_such(in_node: Mapping[str, Any]) -> None:
    found = in_node["stranger"]
    assert found["busy"]["read"]["retryAfterMs"] == 0
    assert (found["page"]["reason"], found["page"]["status"]) == ("UNKNOWN", 200)
    assert (found["odd"]["reason"], found["odd"]["status"]) == ("UNKNOWN", 400)
    assert (found["cut"]["name"], found["cut"]["reason"]) == ("LlmRouterError", "UNAVAILABLE")


def test_what_is_the_programs_own_is_told_as_it_is_and_no_token_is_shown(in_node: Mapping[str, Any]) -> None:
    found = in_node["stranger"]
    assert found["signedOut"]["name"] == "RangeError"
    assert found["noTokens"] == [["TypeError", False]] * 4
    assert [each["name"] for each in found["noUrls"]] == ["TypeError"] * 2


@pytest.fixture(scope="module")
async def in_chromium(stack: LocalStack, installed: Path, built: Path) -> Mapping[str, Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    tools = installed / "node_modules" / "playwright-core"
    if not tools.exists():
        tools.symlink_to(built / "node_modules" / "playwright-core")
    given = {
        "url": f"http://127.0.0.1:{stack.ports.http}",
        "user": stack.identity.mint("user", uuid.uuid4()),
        "cookie": stack.identity.mint("user", uuid.uuid4()),
        "chromium": CHROMIUM,
    }
    told = await succeed(installed, RUN_S, "node", "browser.mjs", given=json.dumps(given))
    found: Mapping[str, Any] = json.loads(told)
    return found


@pytest.mark.parametrize("who", ["bearer", "session"])
def test_a_user_in_a_browser(in_chromium: Mapping[str, Any], who: str) -> None:
    assert_user(in_chromium[who])


def test_a_foreign_page_cannot_use_the_session(in_chromium: Mapping[str, Any]) -> None:
    assert in_chromium["foreign"] == "UNAVAILABLE"  # the browser does not show it the answer


def test_the_documentation_works_in_a_browser_under_its_own_policy(
    in_chromium: Mapping[str, Any], stack: LocalStack
) -> None:
    found = in_chromium["docs"]
    assert found["problems"] == []
    assert found["hosts"] == [f"http://127.0.0.1:{stack.ports.http}"]
    assert found["tried"].startswith("200 OK")
    assert '"decision_id"' in found["tried"]
    assert any("setPlatformKey" in entry for entry in found["left"])
    assert not any("getSettings" in entry for entry in found["left"])


async def test_a_strict_program_is_checked_as_it_should_be(built: Path, installed: Path) -> None:
    strict = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit")
    kinds = ("--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "--types", "")
    await succeed(installed, RUN_S, str(built / "node_modules" / ".bin" / "tsc"), *strict, *kinds, "program.ts")


async def test_a_bundle_has_only_what_is_used(built: Path, installed: Path) -> None:
    (installed / "small.mjs").write_text(
        'import { LlmRouter, route } from "llmrouter";\nexport const ask = () => route(new LlmRouter());\n'
    )
    bundler = str(built / "node_modules" / ".bin" / "esbuild")
    bundle = await succeed(installed, RUN_S, bundler, "small.mjs", "--bundle", "--format=esm", "--minify")
    assert re.findall(r"/api/v2/llm/[\w/{}-]+", bundle) == ["/api/v2/llm/route"]
    assert len(bundle) < 6000
