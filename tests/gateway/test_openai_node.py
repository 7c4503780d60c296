"""The official client for JavaScript against the gateway, pinned by tests/gateway/node/package-lock.json."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import tempfile
import uuid
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway import behaviour, faults, refusals
from gateway.answers import OK
from gateway.openai_client import CALL, HELLO, PNG, TOOL, calls_a_tool, settings, url
from gateway.refusals import status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.chat_stack import ChatStack, World

FOLDER = Path(__file__).parent / "node"
INSTALL_S, RUN_S = 120.0, 60.0
AWAY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")
"""How npm says that it cannot get at its registry."""
BEHAVIOURS = {
    "whole": (behaviour.ok(),),
    "stream": (behaviour.ok(),),
    "usage": (behaviour.ok(),),
    "helper": (behaviour.ok(),),
    "tool": (calls_a_tool(),),
    "streamedTool": (calls_a_tool(),),
    "image": (behaviour.ok(),),
    "badRequest": (refusals.bad_request(),),
    "wrongField": (behaviour.ok(),),
    "budget": (behaviour.ok(),),
    "failed": (status(500),),
    "cut": (faults.cut(3),),
    "reset": (faults.reset_after(3),),
    "stalled": (faults.stalled(3),),
}
"""How every provider behaves in each check's world."""


@pytest.fixture(scope="module")
async def installed(request: pytest.FixtureRequest) -> Path:
    """The folder with the client in it: made once for each lock file, and kept where pytest keeps what it remembers."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    mark = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = request.config.cache.mkdir("openai-node") / mark
    if not folder.is_dir():
        await install(folder)
    shutil.copy(FOLDER / "checks.mjs", folder)  # its imports are looked for beside it
    return folder


async def install(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, made)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")
        code, told = await run(made, INSTALL_S, "npm", "ci", *options)
        if code and any(word in told for word in AWAY):
            pytest.skip(f"npm cannot get at its registry, and the client is not here yet: {told[-500:]}")
        assert code == 0, told
        with contextlib.suppress(OSError):  # somebody else was quicker
            Path(made).rename(folder)
    assert (folder / "node_modules" / "openai").is_dir()


async def run(folder: str | Path, seconds: float, *command: str, given: str = "") -> tuple[int, str]:
    """Return the exit code and the output, or with code 0 what was written to standard output."""
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        output, errors = await asyncio.wait_for(process.communicate(given.encode()), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode
    return code or 0, output.decode() + (errors.decode(errors="replace") if code else "")


@pytest.fixture(scope="module")
async def worlds(chat: ChatStack, impatient: ChatStack) -> Mapping[str, World]:
    found = dict(zip(BEHAVIOURS, await chat.new_worlds(len(BEHAVIOURS)), strict=True))
    (found["stalled"],) = await impatient.new_worlds(1)
    for name, world in found.items():
        for each in world.providers.values():
            each.behave(*BEHAVIOURS[name])
    found["whole"].a.behave(status(500), status(500), behaviour.ok())
    settings(chat, found["budget"], monthly_budget_usd=0.01, on_budget_exceeded="reject")
    return found


@pytest.fixture(scope="module")
async def told(
    chat: ChatStack, impatient: ChatStack, worlds: Mapping[str, World], installed: Path
) -> Mapping[str, Any]:
    """What each check found, in one run."""
    users = {
        name: {
            "url": url(impatient if name == "stalled" else chat),
            "model": world.model,
            "token": world.user.token,
        }
        for name, world in worlds.items()
    }
    given = {"users": users, "messages": HELLO, "image": PNG, "tool": TOOL}
    code, output = await run(installed, RUN_S, "node", "checks.mjs", given=json.dumps(given))
    assert code == 0, output
    found: Mapping[str, Any] = json.loads(output)
    return found


def test_a_whole_answer(told: Mapping[str, Any], worlds: Mapping[str, World]) -> None:
    found, world = told["whole"], worlds["whole"]
    assert (found["text"], found["model"]) == (OK.text, world.model)
    assert found["usage"] == OK.figures()
    uuid.UUID(found["headers"].pop("x-llmrouter-decision-id"))
    assert found["headers"] == {
        "x-llmrouter-provider": f"B of {world.model}",
        "x-llmrouter-model": world.model,
        "x-llmrouter-attempts": "3",
    }
    assert found["request_id"]


def test_streams(told: Mapping[str, Any], worlds: Mapping[str, World]) -> None:
    assert told["stream"] == {"text": OK.text, "usage": None, "model": worlds["stream"].model}
    assert told["usage"] == {"text": OK.text, "usage": OK.figures(), "model": worlds["usage"].model}
    assert told["helper"] == {"text": OK.text}


def test_tools_and_images(told: Mapping[str, Any], worlds: Mapping[str, World]) -> None:
    assert told["tool"]["calls"] == [CALL]
    [call] = told["streamedTool"]["calls"]
    assert call["function"]["arguments"] == CALL["function"]["arguments"]  # type: ignore[index]
    for name in ("tool", "streamedTool"):
        [seen] = worlds[name].a.chats
        assert seen.body["tools"] == [TOOL]
    assert told["image"] == {"text": OK.text}
    content = worlds["image"].a.chats[0].body["messages"][0]["content"]
    assert content[1] == {"type": "image_url", "image_url": {"url": PNG}}


def test_models(told: Mapping[str, Any], worlds: Mapping[str, World]) -> None:
    model = worlds["whole"].model
    assert {"auto", "eco", "balanced", "precision", model} <= set(told["list"]["ids"])
    assert told["retrieve"] == {"id": model}


REFUSED = {
    "badRequest": ("BadRequestError", 400, "invalid_value", "temperature"),
    "wrongField": ("BadRequestError", 400, "invalid_field", "max_tokens"),
    "unknownModel": ("NotFoundError", 404, "model_not_found", "model"),
    "unknownPath": ("NotFoundError", 404, "unknown_path", None),
    "wrongToken": ("AuthenticationError", 401, "unauthenticated", None),
    "budget": ("RateLimitError", 429, "budget_exceeded", None),
    "failed": ("InternalServerError", 502, "providers_failed", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_is_the_one_that_its_users_know(told: Mapping[str, Any], name: str) -> None:
    found = told[name]
    assert (found["error"], found["status"], found["code"], found["param"]) == REFUSED[name]


def test_a_budget_that_is_used_up_is_not_tried_again(told: Mapping[str, Any]) -> None:
    assert (told["budget"]["sent"], told["budget"]["type"]) == (1, "insufficient_quota")


@pytest.mark.parametrize("name", ["cut", "reset", "stalled"])
def test_a_broken_stream_raises(told: Mapping[str, Any], name: str) -> None:
    assert told[name].get("error"), told[name]
