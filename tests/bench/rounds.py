"""What one round measures. Each function returns figures; what is compared is measured in turn, in the same round."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import grpc_load, http_load
from bench.mock_provider import TICK_S
from llmrouter.v2 import power_level_pb2, routing_service_pb2
from llmrouter_server.gateway.envoy_api import ProcessingRequest, ProcessingResponse
from process_meter import cpu_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.places import Bench, Door, Echo

IN_FLIGHT, CALM_CONNECTIONS, CALM_PER_S, STREAMS = 32, 16, 100.0, 100
SETTLING_S = 2.0
"""After which, at the latest, streams are only streams: what their decisions leave behind is written."""
MOST_DECISIONS = 1000
ROUTE = "/llmrouter.v2.RoutingService/Route"
DECIDE = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
OURS, PLAIN, PLAIN_ROUTE = ("envoy", "server", "postgres"), ("plain",), ("envoy", "server")

Figures = dict[str, float]


async def requests(bench: Bench, *, is_ours: bool, seconds: float, per_s: float) -> Figures:
    """Ask for answers in one piece: per_s of them a second, or, when it is 0, as many as can be."""
    load = http_load.Load(
        port=bench.stack.ports.http if is_ours else bench.plain_port,
        tokens=bench.tokens,
        connections=CALM_CONNECTIONS if per_s else IN_FLIGHT,
        seconds=seconds,
        per_s=per_s,
    )
    recorded = await bench.recorded()
    before = bench.cpu_s()
    result = await bench.load("http_load", load)
    if is_ours:
        await bench.until_settled()
    after = bench.cpu_s()
    if is_ours and await bench.recorded() - recorded != result["answers"]:
        raise RuntimeError("not every answer is recorded")
    return figures(result, before, after, OURS if is_ours else PLAIN)


async def streams(bench: Bench, *, is_ours: bool, seconds: float, idle: Mapping[str, float]) -> Figures:
    """Measure in the middle of streams; idle: CPU seconds a second of each part when nobody asks for anything."""
    settling_s = min(SETTLING_S, 2 * seconds)
    load = http_load.Load(
        port=bench.stack.ports.http if is_ours else bench.plain_port,
        tokens=bench.tokens,
        connections=STREAMS,
        chunks=round((seconds + 2 * settling_s + 0.5) / TICK_S),
    )
    process = await bench.begin("http_load", load)
    while await chunks_so_far(process) < STREAMS:
        await asyncio.sleep(0.05)
    await asyncio.sleep(settling_s)
    before, chunks_before, began = bench.cpu_s(), await chunks_so_far(process), time.perf_counter()
    await asyncio.sleep(seconds)
    after, chunks, took = bench.cpu_s(), await chunks_so_far(process) - chunks_before, time.perf_counter() - began
    assert process.stdin is not None
    printed, _ = await process.communicate()
    bench.result(process, printed)
    if is_ours:
        await bench.until_settled()
    if not chunks:  # the streams were over before: something stood still
        return await streams(bench, is_ours=is_ours, seconds=seconds, idle=idle)
    used = {part: after[part] - before[part] - idle[part] * took for part in (OURS if is_ours else PLAIN)}
    return {"chunks_per_s": chunks / took} | {f"{part}_us_a_chunk": used[part] / chunks * 1e6 for part in used}


async def decisions(bench: Bench, *, seconds: float) -> Figures:
    """Ask the server what Envoy asks it, without Envoy."""
    body = http_load.Load(port=0, tokens=bench.tokens, connections=0).request(0).partition(b"\r\n\r\n")[2]
    load = grpc_load.Load(
        port=bench.stack.ports.gateway,
        path=DECIDE,
        metadata={"x-llmrouter-gateway-secret": bench.stack._gateway_secret()},
        messages=[[_base64(_headers(token)), _base64(_body(body))] for token in bench.tokens],
        connections=1,
        callers=IN_FLIGHT,
        seconds=seconds,
        most_calls=MOST_DECISIONS,
    )
    before = bench.cpu_s()
    result = await bench.load("grpc_load", load)
    after = bench.cpu_s()
    await bench.forget_open()
    for answer in result["sample"]:
        decided = ProcessingResponse.FromString(base64.b64decode(answer))
        if len(decided.dynamic_metadata["llmrouter.plan"]["candidates"]) != 3:
            raise RuntimeError("a decision is not what it should be")
    return figures(result, before, after, ("server", "postgres"))


async def route(bench: Bench, *, seconds: float, is_new: bool = False) -> tuple[Figures, bytes]:
    """Ask the server over gRPC; return an answer too. is_new: each call has an estimate that no other had."""
    load = replace(
        _unary(bench, bench.stack.ports.grpc, seconds),
        counted_field=routing_service_pb2.RouteRequest.ESTIMATED_INPUT_TOKENS_FIELD_NUMBER if is_new else 0,
    )
    before = bench.cpu_s()
    result = await bench.load("grpc_load", load)
    after = bench.cpu_s()
    answers = [base64.b64decode(answer) for answer in result["sample"]]
    for answer in answers:
        routed = routing_service_pb2.RouteResponse.FromString(answer)
        if routed.total_options != 4 or not routed.primary.model_name:
            raise RuntimeError("a route is not what it should be")
    return figures(result, before, after, ("server", "postgres")), answers[0]


async def echo(bench: Bench, other: Echo, answer: bytes, *, seconds: float) -> Figures:
    """Ask the bare server for the same bytes."""
    before = {"server": cpu_s(other.server_pid)}
    result = await bench.load("grpc_load", _unary(bench, other.grpc_port, seconds))
    after = {"server": cpu_s(other.server_pid)}
    if any(base64.b64decode(each) != answer for each in result["sample"]):
        raise RuntimeError("an echo is not what it should be")
    return figures(result, before, after, ("server",))


async def in_json(bench: Bench, door: Door | None, *, seconds: float) -> Figures:
    """Ask for Route through our Envoy, or through this one."""
    load = http_load.Load(
        port=door.http_port if door else bench.stack.ports.http,
        path="/api/v2/llm/route",
        tokens=bench.tokens[:1],
        connections=IN_FLIGHT,
        seconds=seconds,
        body='{"power_level":"ECO"}',
        judge="a route",
    )

    def used() -> dict[str, float]:
        return bench.cpu_s() | ({"envoy": cpu_s(door.envoy_pid), "server": cpu_s(door.server_pid)} if door else {})

    before = used()
    result = await bench.load("http_load", load)
    return figures(result, before, used(), PLAIN_ROUTE if door else OURS)


async def idle(bench: Bench, *, seconds: float) -> Figures:
    """Return the CPU seconds that each part uses in a second when nobody asks for anything."""
    before, began = bench.cpu_s(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, took = bench.cpu_s(), time.perf_counter() - began
    return {part: (after[part] - before[part]) / took for part in after}


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _unary(bench: Bench, port: int, seconds: float) -> grpc_load.Load:
    asked = routing_service_pb2.RouteRequest(power_level=power_level_pb2.ECO)
    return grpc_load.Load(
        port=port,
        path=ROUTE,
        metadata={"authorization": f"Bearer {bench.tokens[0]}"},
        messages=[[_base64(asked.SerializeToString())]],
        connections=4,
        callers=IN_FLIGHT // 4,
        seconds=seconds,
        with_ids=True,
    )


def figures(
    result: Mapping[str, Any], before: Mapping[str, float], after: Mapping[str, float], parts: Sequence[str]
) -> Figures:
    latencies, answers, per_s = result["latencies_s"], result["answers"], result["per_s"]
    used = {part: after[part] - before[part] for part in parts}
    return {
        "answers": answers,
        "per_s": per_s,
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "us": sum(used.values()) / answers * 1e6,
        "core": sum(used.values()) * per_s / answers,
        **{f"{part}_us": used[part] / answers * 1e6 for part in parts},
    }


async def chunks_so_far(process: asyncio.subprocess.Process) -> int:
    """Return how many chunks a load of streams has got."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a load failed; see what it wrote")
    return int(json.loads(line)["chunks"])


def _headers(token: str) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "gateway.test",
        ":path": http_load.PATH,
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "x-request-id": "b3f2c9c8-0000-4000-8000-000000000000",
        "x-forwarded-proto": "http",
    }
    listed = [{"key": name, "raw_value": value.encode()} for name, value in headers.items()]
    sent: bytes = ProcessingRequest(request_headers={"headers": {"headers": listed}}).SerializeToString()
    return sent


def _body(body: bytes) -> bytes:
    sent: bytes = ProcessingRequest(request_body={"body": body, "end_of_stream": True}).SerializeToString()
    return sent


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
