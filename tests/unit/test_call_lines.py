"""The access log: what a line of a call says, and when it is written."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import threading
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.call_lines import LOGGER, MOST_WAITING, Beside, Call, CallLines, Output
from llmrouter_server.runtime.telemetry import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTE = "/llmrouter.v2.RoutingService/Route"
USER = UUID(int=7)


def a_call(
    request_id: str = "told-1", reason: str | None = None, user_id: UUID | None = USER, ended_at: float = 1767225600.0
) -> Call:
    return Call(ROUTE, "OK", reason, ended_at, 0.0123456, request_id, user_id)


@pytest.fixture
def output() -> Iterator[Output]:
    telemetry.tell()
    made, logger = Output(telemetry.tell, io.StringIO()), logging.getLogger("llmrouter_server")
    made.setFormatter(JsonLines())
    level = logger.level
    logger.addHandler(made)
    logger.setLevel(logging.INFO)
    yield made
    logger.removeHandler(made)
    logger.setLevel(level)


def written(output: Output) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.stream.getvalue().splitlines()]


@pytest.mark.parametrize(("reason", "user_id"), [(None, USER), ("ROLE_REQUIRED", USER), ("UNAUTHENTICATED", None)])
def test_the_line_of_a_call_is_what_the_encoder_would_write(reason: str | None, user_id: UUID | None) -> None:
    call, told = a_call(reason=reason, user_id=user_id), {"method": ROUTE, "code": "OK", "reason": reason}
    told |= {"request_id": "told-1", "user_id": str(user_id) if user_id is not None else None}
    common = logging.makeLogRecord({"name": LOGGER, "levelname": "INFO", "levelno": logging.INFO, "msg": "call"} | told)
    common.created = call.ended_at
    assert json.loads(call.to_json()) == json.loads(JsonLines().format(common)) | {"duration_ms": 12.346}


@pytest.mark.parametrize("ended_at", [1767225599.9999, 1767225600.0, 1767225600.0004, 1767225600.999])
def test_a_line_tells_the_millisecond_that_the_call_ended_in(ended_at: float) -> None:
    common = logging.makeLogRecord({})
    common.created = ended_at
    told = json.loads(a_call(ended_at=ended_at).to_json())
    assert told["ts"] == json.loads(JsonLines().format(common))["ts"]


def test_other_handlers_can_format_them_too() -> None:
    formatted = logging.Formatter("%(levelname)s %(name)s %(message)s").format(CallLines([a_call()]))
    assert formatted == f"INFO {LOGGER} call"


async def test_lines_of_calls_are_written_together_a_moment_later(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "GATHER_S", 0.0)
    telemetry.ended(a_call("first"))
    telemetry.ended(a_call("second"))
    assert written(output) == []
    async with asyncio.timeout(10):
        while not written(output):
            await asyncio.sleep(0)
    assert [line["request_id"] for line in written(output)] == ["first", "second"]


async def test_any_other_line_is_written_at_once_after_those_that_wait(output: Output) -> None:
    telemetry.ended(a_call("first"))
    logging.getLogger("llmrouter_server.test").warning("broken")
    telemetry.ended(a_call("second"))
    assert [line["message"] for line in written(output)] == ["call", "broken"]


async def test_what_waits_when_logging_ends_is_written(output: Output) -> None:
    telemetry.ended(a_call())
    output.close()
    output.close()
    assert len(written(output)) == 1


async def test_whoever_asks_at_the_same_time_each_call_is_written_once(output: Output) -> None:
    for number in range(5000):
        telemetry.ended(a_call(str(number)))
    threads = [threading.Thread(target=telemetry.tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(str(line["request_id"]) for line in written(output)) == sorted(map(str, range(5000)))


def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_is_too_much_is_counted() -> None:
    reading, writing = os.pipe()
    dropped: list[int] = []
    with os.fdopen(reading, encoding="ascii") as reader, os.fdopen(writing, "w", encoding="ascii") as pipe:
        beside = Beside(pipe, dropped.append)
        lines = [f"{number:04d} {'x' * 1000}\n" for number in range(2 * MOST_WAITING)]
        for line in lines:
            beside.write(line)
        assert sum(dropped) > 0
        kept = len(lines) - sum(dropped)
        read = [reader.readline() for _ in range(kept)]
        assert read == [line for line in lines if line in set(read)]
        beside.write("after\n")
        beside.finish()
        assert reader.readline() == "after\n"


def test_what_a_closed_stream_does_not_take_is_counted() -> None:
    dropped: list[int] = []
    stream = io.StringIO()
    stream.close()
    beside = Beside(stream, dropped.append)
    beside.write("one\ntwo\n")
    beside.finish()
    assert dropped == [2]
