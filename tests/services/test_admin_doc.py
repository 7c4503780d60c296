"""docs/admin.md: every command is run, and prints what stands below it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from services.cookbook import DOCS, Shell, compare, environment, play, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llmrouter_server.runtime.local_stack import LocalStack

DOCUMENT = DOCS / "admin.md"
ADDRESS = "127.0.0.1:50051"


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
async def test_every_command_prints_what_stands_below_it(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], tmp_path: Path
) -> None:
    keys = {"OPENROUTER_KEY": "sk-or-0123456789abcdef", "GROQ_KEY": "gsk_0123456789abcdef"}
    async with own_stack() as stack, Shell(tmp_path, environment(stack, **keys)) as shell:
        elsewhere = {ADDRESS: stack.grpc_address}
        await play(DOCUMENT, steps_of(DOCUMENT.read_text()), shell, elsewhere, later=["GetDecision"])


def test_it_has_a_recipe_of_every_kind() -> None:
    commands = " ".join(step.command for step in steps_of(DOCUMENT.read_text()))
    for service in ("Provider", "Model", "Byok", "Settings", "Routing", "RoutingRule", "Usage", "Health", "Audit"):
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
