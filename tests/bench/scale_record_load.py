"""A load of reports of usage, each one new, as a process of its own that reads a RecordLoad from its standard input."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import overload

import uvloop

from bench.grpc_load import LATE_S, Connection, Load, Results, varint
from bench.scale_load import tell
from llmrouter.v2 import usage_service_pb2

SERVICE = "/llmrouter.v2.UsageService/"
REQUEST, DECISION = "r" * 36, "d" * 36
RECORDS_FIELD = b"\x0a"
"""BatchRecordUsageRequest.records as protobuf writes it: field 1, with a length."""
TEMPLATES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLoad:
    """What to report. Each caller reports again as soon as it is answered.

    batch: reports in a call; 0: RecordUsage, one in a call.
    """

    port: int
    metadata: dict[str, str]
    users: Sequence[str]
    models: Sequence[str]
    batch: int
    connections: int
    callers: int
    """Of each connection."""
    seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Reports(Sequence[list[bytes]]):
    """Calls without an end, no two with the same request id or decision."""

    def __init__(self, load: RecordLoad) -> None:
        self._batch, self._made, self._prefix = load.batch, 0, os.urandom(4).hex()
        chosen = random.Random(1)
        self._templates = [
            _template(chosen.choice(load.users), chosen.choice(load.models), chosen) for _ in range(TEMPLATES)
        ]

    def __len__(self) -> int:
        return sys.maxsize

    @overload
    def __getitem__(self, number: int) -> list[bytes]: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[list[bytes]]: ...
    def __getitem__(self, number: int | slice) -> list[bytes] | Sequence[list[bytes]]:
        if not self._batch:
            return [self._report()]
        reports = [self._report() for _ in range(self._batch)]
        return [b"".join(RECORDS_FIELD + varint(len(each)) + each for each in reports)]

    def _report(self) -> bytes:
        self._made += 1
        number = f"{self._prefix}-0000-4000-8000-{self._made:012x}".encode()
        template = self._templates[self._made % TEMPLATES]
        return template.replace(REQUEST.encode(), number).replace(DECISION.encode(), number)


def _template(user: str, model: str, chosen: random.Random) -> bytes:
    """Make a report whose payer is to be found out."""
    return usage_service_pb2.RecordUsageRequest(
        user_id=user,
        request_id=REQUEST,
        model_id=model,
        input_tokens=chosen.randrange(100, 2000),
        output_tokens=chosen.randrange(10, 500),
        latency_ms=chosen.randrange(200, 1200),
        decision_id=DECISION,
    ).SerializeToString()


async def run(load: RecordLoad) -> dict[str, object]:
    loop, results, reports = asyncio.get_running_loop(), Results(), Reports(load)
    calls = Load(
        port=load.port,
        path=SERVICE + ("BatchRecordUsage" if load.batch else "RecordUsage"),
        metadata=load.metadata,
        messages=[],
        connections=load.connections,
        callers=load.callers,
        seconds=load.seconds,
    )
    began = time.perf_counter()
    connections = []
    for _ in range(load.connections):
        made = functools.partial(_connection, calls, results, began + load.seconds, reports)
        connections.append((await loop.create_connection(made, "127.0.0.1", load.port))[1])
    async with asyncio.timeout(load.seconds + LATE_S):
        await asyncio.gather(*(each.over for each in connections))
    taken_s = time.perf_counter() - began
    acknowledged = results.calls * (load.batch or 1)
    for answer in results.sample:
        _check(load, answer)
    return {
        "acknowledged": acknowledged,
        "per_s": acknowledged / taken_s,
        "latencies_s": results.late_s or results.early_s,
    }


def _connection(load: Load, results: Results, until: float, reports: Reports) -> Connection:
    connection = Connection(load, results, until)
    connection._messages = reports  # type: ignore[assignment] # it reads one by its number, and asks how many there are
    return connection


def _check(load: RecordLoad, answer: bytes) -> None:
    if not load.batch:
        receipts = [usage_service_pb2.RecordUsageResponse.FromString(answer)]
    else:
        results = usage_service_pb2.BatchRecordUsageResponse.FromString(answer).results
        if len(results) != load.batch or any(not each.HasField("recorded") for each in results):
            raise ValueError("a report was refused")
        receipts = [each.recorded for each in results]
    if any(each.is_duplicate or not uuid.UUID(each.usage_id) for each in receipts):
        raise ValueError("a report was taken for one that was there before")


if __name__ == "__main__":
    tell(uvloop.run(run(RecordLoad(**json.loads(sys.stdin.read())))))
