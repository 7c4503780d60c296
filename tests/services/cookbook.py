"""A Markdown document of commands and what they print, run in one shell and compared."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from llmrouter_server.runtime.local_stack import LocalStack

DOCS = Path(__file__).resolve().parents[2] / "docs"

COMMAND_S = 60.0
STOP_S = 20.0
LATER_S = 20.0
LEFT_OUT = "..."
"""A line of a sample that stands for whatever else there is."""
VOLATILE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"  # a time
    r"|(?<=\")[0-9a-f]{16}(?=\")"  # an etag
)
FAILURES = ("ERROR:", "llmrouter:")
"""How the sample of a command begins that is meant to fail."""
HERE = re.compile(r"<<'(\w+)'$")
"""How a command ends whose input is the lines below it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the document, and what it prints there."""

    line: int
    command: str
    sample: str

    @property
    def fails(self) -> bool:
        return self.sample.startswith(FAILURES)


def steps_of(markdown: str) -> list[Step]:
    """Read the `console` blocks: a command follows `$ `, goes on after a backslash or with the lines that are its input
    (`<<'END'`), and its output comes below.
    """
    steps: list[Step] = []
    block, numbered = False, enumerate(markdown.splitlines(), start=1)
    for number, text in numbered:
        if text.startswith("```"):
            block = text == "```console"
        elif block and text.startswith("$ "):
            command = text[2:]
            while command.endswith("\\"):
                command += "\n" + next(numbered)[1]
            if (mark := HERE.search(command)) is not None:
                while not command.endswith(f"\n{mark[1]}"):
                    command += "\n" + next(numbered)[1]
            steps.append(Step(number, command, ""))
        elif block:
            last = steps.pop()
            steps.append(Step(last.line, last.command, f"{last.sample}{text}\n"))
    return steps


class Shell:
    """A bash that takes one command after another; always stopped."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._process: asyncio.subprocess.Process | None = None
        self._mark = secrets.token_hex(8)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "bash", cwd=self._folder, env=self._environment, stdin=PIPE, stdout=PIPE, stderr=STDOUT, limit=1 << 20
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()  # which ends it, unless a command hangs
        try:
            await asyncio.wait_for(self._process.communicate(), STOP_S)
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()

    async def run(self, command: str) -> tuple[int, str]:
        """Return the exit code and all that was printed."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho {self._mark} $?\n".encode())
        output = ""
        async with asyncio.timeout(COMMAND_S):
            while True:
                line = (await self._process.stdout.readline()).decode()
                assert line, f"the shell ended: {output}"
                before, mark, code = line.partition(self._mark)
                output += before
                if mark:
                    return int(code), output


async def play(
    document: Path,
    steps: Sequence[Step],
    shell: Shell,
    elsewhere: Mapping[str, str],
    later: Sequence[str] = (),
) -> None:
    """Run the steps one after another; the test fails at the first that prints something else than its sample.

    `elsewhere`: addresses as they are written, and where these things are in this test. `later`: what a command holds
    that asks for what is there only a moment after it was made; it is run again until it prints its sample.
    """
    renamed: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    for step in steps:
        command = step.command
        for written, found in {**elsewhere, **renamed}.items():
            command = command.replace(written, found)
        until = loop.time() + (LATER_S if any(word in command for word in later) else 0)
        while True:
            try:
                code, printed = await shell.run(command)
            except TimeoutError:
                pytest.fail(f"{document.name}:{step.line}: it did not end: {command}")
            for written, found in elsewhere.items():
                printed = printed.replace(found, written)
            try:
                assert (code != 0) == step.fails, f"exit code {code}"
                renamed |= compare(step.sample, printed)
            except (AssertionError, ValueError) as error:
                if loop.time() < until:
                    continue
                pytest.fail(f"{error}\n{document.name}:{step.line}: {command}\n{printed}")
            break


def environment(stack: LocalStack, **more: str) -> dict[str, str]:
    """Return what a shell has in which somebody works with this stack, and nothing of ours besides."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LLMROUTER_")}
    return mine | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LLMROUTER_HOME": str(stack.home),
        "LLMROUTER_SERVER": stack.grpc_address,
        **more,
    }


def compare(sample: str, printed: str) -> dict[str, str]:
    """Compare what is printed with the sample; AssertionError where they differ, but for ids and times.

    Returns what stands for each id of the sample, so that the commands that follow can be about the same things.
    """
    renamed: dict[str, str] = {}
    if sample.startswith("{"):
        _compare_json(_read(sample), json.loads(printed), "", renamed)
    else:
        _compare_text(sample, printed, renamed)
    return renamed


def _read(sample: str) -> Any:
    """Read JSON with `...` for what is left out: as a field of an object, or an item of a list."""
    brackets: list[str] = []
    lines: list[str] = []
    for line in sample.splitlines():
        text = line.strip().rstrip(",")
        if text[:1] in ("]", "}"):
            brackets.pop()
        if text == LEFT_OUT:
            lines.append(f'"{LEFT_OUT}": null' if brackets[-1] == "{" else f'"{LEFT_OUT}"')
        else:
            lines.append(line)
        if text[-1:] in ("[", "{"):
            brackets.append(text[-1])
    return json.loads("\n".join(lines))


def _compare_json(sample: Any, found: Any, path: str, renamed: dict[str, str]) -> None:
    assert type(sample) is type(found), f"{path}: {sample!r} is not like {found!r}"
    if isinstance(sample, dict):
        wanted = set(sample) - {LEFT_OUT}
        assert wanted <= set(found) if LEFT_OUT in sample else wanted == set(found), f"{path}: {set(found) ^ wanted}"
        for name in wanted - {"next_page_token"}:
            _compare_json(sample[name], found[name], f"{path}.{name}", renamed)
    elif isinstance(sample, list):
        some = sample[:-1] if sample[-1:] == [LEFT_OUT] else sample
        assert len(some) <= len(found) if len(some) < len(sample) else len(some) == len(found), f"{path}: {len(found)}"
        for number, (each, other) in enumerate(zip(some, found, strict=False)):
            _compare_json(each, other, f"{path}[{number}]", renamed)
    else:
        _compare_text(json.dumps(sample), json.dumps(found), renamed, path)


def _compare_text(sample: str, printed: str, renamed: dict[str, str], path: str = "") -> None:
    """Compare line by line; blanks count once, since an id or a time may be longer elsewhere."""
    for wanted, found in itertools.zip_longest(sample.splitlines(), printed.splitlines()):
        if wanted == LEFT_OUT:
            return
        assert wanted is not None, f"{path}: also printed: {found}"
        assert found is not None, f"{path}: not printed: {wanted}"
        assert _constant(wanted) == _constant(found), path
        pairs = zip(VOLATILE.finditer(wanted), VOLATILE.finditer(found), strict=True)
        renamed.update({one[0]: other[0] for one, other in pairs})


def _constant(line: str) -> str:
    return re.sub(r"\s+", " ", VOLATILE.sub("~", line)).strip()
