"""docs/troubleshooting.md has a section for each error that one can get, and none for others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmrouter.v2.error_reason_pb2 import ErrorReason
from llmrouter_server.routing.eligibility import Exclusion

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
REASONS, CODES = TEXT.split("\n## ")[1:]
NAMED = re.compile(r"^### `(\w+)`$", re.MULTILINE)
WHERE_CODES_ARE = {
    "envoy/gateway_attempt.lua": r'code = (?:"\w+", )*"(\w+)"',
    "envoy/gateway_answer.lua": r'"code":"(\w+)"',
    "envoy/envelope.lua": r'= \{ \d+, "(\w+)", ',
    "server/llmrouter_server/gateway/openai_errors.py": r'return \d{3}, "(\w+)"',
}
"""What the gateway says of itself, as it is written there."""


def reasons() -> set[str]:
    return {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - no dict


def codes() -> set[str]:
    """Return the gateway's codes that are no reason in lower case."""
    found = {
        code.lower()
        for file, pattern in WHERE_CODES_ARE.items()
        for code in re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"))
    }
    return found - {reason.lower() for reason in reasons()}


def test_every_reason_has_its_section_and_every_section_a_reason() -> None:
    sections = NAMED.findall(REASONS)
    assert len(sections) == len(set(sections))
    assert set(sections) == reasons()


def test_a_reason_has_the_status_of_the_protos() -> None:
    document = json.loads((ROOT / "envoy" / "openapi.json").read_text(encoding="utf-8"))
    told = document["components"]["schemas"]["ErrorReason"]["description"]
    written = re.findall(r"^### `(\w+)`\n\n(?:[^#]*?)HTTP (\d{3})", REASONS, re.MULTILINE)
    assert written
    assert set(written) == set(re.findall(r"^- `(\w+)` \((\d{3})\)", told, re.MULTILINE))


def test_every_code_of_the_gateway_has_its_section_and_every_section_a_code() -> None:
    sections = NAMED.findall(CODES)
    assert len(sections) == len(set(sections))
    assert set(sections) == codes()


def test_a_code_of_the_gateway_is_told_in_the_document_with_the_status_of_its_section() -> None:
    document = json.loads((ROOT / "envoy" / "openapi.json").read_text(encoding="utf-8"))
    responses = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    for section in re.split(r"^### ", CODES, flags=re.MULTILINE)[1:]:
        code = section[1 : section.index("`", 1)]
        [status] = re.findall(r"\b(?:HTTP|status was) (\d{3})\b", section)
        told = responses[status]
        if "$ref" in told:
            told = document["components"]["responses"][told["$ref"].rpartition("/")[2]]
        assert f"`{code}`" in json.dumps(told), (code, status)


@pytest.mark.parametrize(("file", "pattern"), WHERE_CODES_ARE.items())
def test_codes_are_still_written_there_in_that_way(file: str, pattern: str) -> None:
    assert re.search(pattern, (ROOT / file).read_text(encoding="utf-8"))


def test_every_section_says_what_it_means_and_what_to_do() -> None:
    for section in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
        paragraphs = [each for each in section.split("\n## ")[0].split("\n\n")[1:] if each.strip()]
        assert len(paragraphs) >= 2, section


def test_every_reason_of_exclusion_is_in_the_table() -> None:
    table = REASONS.partition("### `NO_ELIGIBLE_MODEL`")[2].partition("\n### ")[0]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == {each.value for each in Exclusion}
