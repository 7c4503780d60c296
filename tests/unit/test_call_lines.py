"""The access log: what a line of a call says, and when it is written."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from uuid import UUID

import pytest

from llmrouter_server.runtime import call_lines
from llmrouter_server.runtime.call_lines import LOGGER, MAX_GATHERED, CallLine, Output
from llmrouter_server.runtime.telemetry import JsonLines

ROUTE = "/llmrouter.v2.RoutingService/Route"
USER = UUID(int=7)


def call_line(request_id: str = "told-1", reason: str | None = None, user_id: UUID | None = USER) -> CallLine:
    return CallLine(ROUTE, "OK", reason=reason, seconds=0.0123456, request_id=request_id, user_id=user_id)


def other_line(message: str) -> logging.LogRecord:
    return logging.LogRecord("llmrouter_server.test", logging.WARNING, "", 0, message, (), None)


@pytest.fixture
def output() -> Output:
    made = Output()
    made.setFormatter(JsonLines())
    made.setStream(io.StringIO())
    return made


def written(output: Output) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.stream.getvalue().splitlines()]


@pytest.mark.parametrize(("reason", "user_id"), [(None, USER), ("ROLE_REQUIRED", USER), ("UNAUTHENTICATED", None)])
def test_the_line_of_a_call_is_what_the_encoder_would_write(reason: str | None, user_id: UUID | None) -> None:
    line, told = call_line(reason=reason, user_id=user_id), {"method": ROUTE, "code": "OK", "reason": reason}
    told |= {"request_id": "told-1", "user_id": str(user_id) if user_id is not None else None}
    common = logging.makeLogRecord({"name": LOGGER, "levelname": "INFO", "levelno": logging.INFO, "msg": "call"} | told)
    common.created = line.created
    assert json.loads(JsonLines().format(line)) == json.loads(JsonLines().format(common)) | {"duration_ms": 12.346}


@pytest.mark.parametrize("created", [1767225599.9999, 1767225600.0, 1767225600.0004, 1767225600.999])
def test_a_line_tells_the_millisecond_that_it_was_made_in(created: float) -> None:
    line, common = call_line(), other_line("x")
    line.created = common.created = created
    assert json.loads(line.to_json())["ts"] == json.loads(JsonLines().format(common))["ts"]


def test_other_handlers_can_format_it_too() -> None:
    formatted = logging.Formatter("%(levelname)s %(name)s %(message)s %(threadName)s").format(call_line())
    assert formatted.startswith(f"INFO {LOGGER} call ")


async def test_lines_of_calls_are_written_together_a_moment_later(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_lines, "GATHER_S", 0.0)
    output.handle(call_line("first"))
    output.handle(call_line("second"))
    assert written(output) == []
    async with asyncio.timeout(10):
        while not written(output):
            await asyncio.sleep(0)
    assert [line["request_id"] for line in written(output)] == ["first", "second"]


async def test_any_other_line_is_written_at_once_after_those_that_wait(output: Output) -> None:
    output.handle(call_line("first"))
    output.handle(other_line("broken"))
    output.handle(call_line("second"))
    assert [line["message"] for line in written(output)] == ["call", "broken"]


async def test_so_many_lines_do_not_wait(output: Output) -> None:
    for _ in range(MAX_GATHERED):
        output.handle(call_line())
    assert len(written(output)) == MAX_GATHERED


async def test_what_waits_when_logging_ends_is_written(output: Output) -> None:
    output.handle(call_line())
    output.flush()
    output.flush()
    assert len(written(output)) == 1
