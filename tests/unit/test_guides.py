"""The guides and READMEs: every link leads somewhere, and every command that is only named exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from llmrouter_server.cli import main

TOP = Path(__file__).resolve().parents[2]
FOLDERS = (TOP, TOP / "docs", TOP / "envoy", TOP / "deploy" / "kubernetes", *(TOP / "clients").iterdir())
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.md"))]
RUN_BY_A_TEST = ("admin", "user-guide", "operations", "troubleshooting")
each_file = pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(TOP)) for file in FILES])


def anchors(file: Path) -> set[str]:
    """Return what GitHub calls the headings of a file."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_file
def test_every_link_leads_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", file.read_text()):
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_file
def test_every_command_that_is_named_exists(file: Path) -> None:
    for named in re.findall(r"`llmrouter ([^`]+)`", file.read_text()):
        command: click.Command = main
        for word in named.split():
            if word.startswith("-"):
                options = {name for parameter in command.params for name in (*parameter.opts, "--help", "--version")}
                assert word.partition("=")[0] in options, named
            elif isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                assert found is not None, named
                command = found


@pytest.mark.parametrize("name", RUN_BY_A_TEST)
def test_a_guide_has_no_block_of_commands_but_those_that_are_run(name: str) -> None:
    text = (TOP / "docs" / f"{name}.md").read_text()
    assert set(re.findall(r"^```(\w*)$", text, re.MULTILINE)) <= {"console", ""}
    assert text.count("```") == 2 * text.count("```console")
    assert not re.search(r"^(    |\t)\S", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
