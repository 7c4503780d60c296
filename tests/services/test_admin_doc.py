"""docs/admin.md: every command is run, and prints what stands below it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.cookbook import Shell, Step, compare, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from llmrouter_server.runtime.local_stack import LocalStack

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "admin.md"
ADDRESS = "127.0.0.1:50051"
LATER = "GetDecision"
"""What can be read a moment after it was made: asked for until it is there."""
LATER_S = 20.0


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
async def test_every_command_prints_what_stands_below_it(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], tmp_path: Path
) -> None:
    steps = steps_of(DOCUMENT.read_text())
    renamed: dict[str, str] = {}
    async with own_stack() as stack, Shell(tmp_path, environment(stack)) as shell:
        for step in steps:
            command = step.command.replace(ADDRESS, stack.grpc_address)
            for written, found in renamed.items():
                command = command.replace(written, found)
            code, printed = await run(shell, step, command)
            told = f"{DOCUMENT.name}:{step.line}: {command}\n{printed}"
            assert (code != 0) == step.fails, told
            try:
                renamed |= compare(step.sample, printed.replace(stack.grpc_address, ADDRESS))
            except (AssertionError, ValueError) as error:
                pytest.fail(f"{error}\n{told}")


async def run(shell: Shell, step: Step, command: str) -> tuple[int, str]:
    code, printed = await shell.run(command)
    if LATER in command:
        async with asyncio.timeout(LATER_S):
            while code and not step.fails:
                code, printed = await shell.run(command)
    return code, printed


def environment(stack: LocalStack) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LLMROUTER_")}
    return mine | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LLMROUTER_HOME": str(stack.home),
        "LLMROUTER_SERVER": stack.grpc_address,
        "OPENROUTER_KEY": "sk-or-0123456789abcdef",
        "GROQ_KEY": "gsk_0123456789abcdef",
    }


def test_it_has_a_recipe_of_every_kind() -> None:
    commands = " ".join(step.command for step in steps_of(DOCUMENT.read_text()))
    for service in ("Provider", "Model", "Byok", "Settings", "Routing", "Usage", "Health", "Audit"):
        assert f"{service}Service/" in commands


@pytest.mark.parametrize(
    ("sample", "printed"),
    [
        ('{\n  "a": 1\n}', '{"a": 2}'),
        ('{\n  "a": 1\n}', '{"a": 1, "b": 2}'),
        ('{\n  "a": [\n    1,\n    ...\n  ]\n}', '{"a": [2, 1]}'),
        ('{\n  "a": [\n    1\n  ]\n}', '{"a": [1, 1]}'),
        ('{\n  "a": "01a20f43-2951-749e-b8b7-76700fce3a08"\n}', '{"a": "none"}'),
        ("NAME  N\n...\n", "NAME\nGroq\n"),
        ("NAME\nGroq\n", "NAME\n"),
        ("NAME\n", "NAME\nGroq\n"),
    ],
)
def test_what_differs_is_seen(sample: str, printed: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        compare(sample, printed)


def test_ids_and_times_and_what_is_left_out_may_differ() -> None:
    one, other = "01a20f43-2951-749e-b8b7-76700fce3a08", "f7833df5-3d9c-45ae-b528-6f3034d8105b"
    sample = f'{{\n  "id": "{one}",\n  "at": "2026-01-01T00:00:00Z",\n  "list": [\n    1,\n    ...\n  ],\n  ...\n}}'
    printed = f'{{"id": "{other}", "at": "2027-01-01T00:00:00.5Z", "list": [1, 2], "more": 3}}'
    assert compare(sample, printed)[one] == other
