from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.failover_doc import document
from gateway.failover_play import Outcome, Scenario, play_all
from gateway.failover_rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.chat_stack import ChatStack

DOCUMENT = Path(__file__).parents[2] / "docs" / "failover.md"
SCENARIOS: Mapping[str, Scenario] = {
    f"{row}, {asked}": (row, asked) for rows in ROWS.values() for row in rows for asked in row.asked
}


@pytest.fixture(scope="module")
async def outcomes(
    request: pytest.FixtureRequest, chat: ChatStack, impatient: ChatStack
) -> Mapping[str, Outcome | BaseException]:
    """What became of each scenario that is to be tested."""
    wanted = {
        item.callspec.params["name"]: SCENARIOS[item.callspec.params["name"]]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == Path(__file__) and "outcomes" in item.fixturenames
    }
    return await play_all(chat, impatient, wanted)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failing_provider_costs_the_client_no_more_than_it_must(
    name: str, outcomes: Mapping[str, Outcome | BaseException]
) -> None:
    if isinstance(outcome := outcomes[name], BaseException):
        raise outcome


def test_no_two_rows_have_the_same_name() -> None:
    assert len(SCENARIOS) == sum(len(row.asked) for rows in ROWS.values() for row in rows)


def test_envoy_has_nothing_to_complain_about(chat: ChatStack, impatient: ChatStack) -> None:
    assert chat.complaints() + impatient.complaints() == []


def test_the_document_says_what_is_tested() -> None:
    text = document()
    if os.environ.get("UPDATE_DOCS") == "1":
        DOCUMENT.write_text(text, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == text, "write it again with UPDATE_DOCS=1"
