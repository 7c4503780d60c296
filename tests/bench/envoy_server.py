"""Stands behind an Envoy whose own cost is measured: `python -m bench.envoy_server '<Behind as JSON>'`.

Route gets the same bytes each time, a chat request the same plan, by the product's own gateway; where the provider is
comes by discovery, and reports are taken and forgotten. It prints the ports of the two servers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from bench.answers import ROUTED
from bench.echo_server import Echo
from llmrouter.v2 import power_level_pb2, routing_service_pb2
from llmrouter_server.gateway.access_log import AccessLog
from llmrouter_server.gateway.chat import head_of
from llmrouter_server.gateway.clusters import Upstream
from llmrouter_server.gateway.decision import Prepared
from llmrouter_server.gateway.discovery import ClusterDiscovery
from llmrouter_server.gateway.ext_proc import ExtProc
from llmrouter_server.gateway.plan import Candidate, Plan, PlansUnderWay
from llmrouter_server.gateway.server import GatewayServer
from llmrouter_server.runtime.auth import Caller
from llmrouter_server.runtime.local_ports import free_ports

if TYPE_CHECKING:
    from llmrouter_server.gateway.chat import ChatRequest

PROVIDER, MODEL, USER = (uuid.UUID(int=number) for number in (1, 2, 3))
CANDIDATES = 3
"""As the bench's decisions have; the first one serves."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What it answers with; `route` is in base64."""

    route: str
    provider_port: int
    secret: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def prepared(chat: ChatRequest) -> Prepared:
    """Return the plan for every chat request."""
    candidate = Candidate(
        provider_id=PROVIDER,
        provider="bench-A",
        model_id=MODEL,
        model="bench-A",
        payer="PLATFORM",
        context=32_000,
        path="/chat/completions",
        head=head_of("bench-A", "max_completion_tokens", chat.max_output),
    )
    plan = Plan(
        decision_id=uuid.uuid4(),
        user_id=USER,
        decided_at=datetime.now(UTC),
        stream=chat.stream,
        hide_usage=not chat.wants_usage,
        prompt_tokens=chat.prompt_tokens,
        prompt_bound=chat.prompt_bound,
        output_bound=100,
        held=True,
        first_byte_ms=30_000,
        candidates=(candidate,) * CANDIDATES,
    )
    return Prepared(plan, "authorization\tBearer sk-bench-A-0123456789\t" * CANDIDATES, is_slow=False)


def route_answer() -> bytes:
    """Return an answer of Route such as the seed's catalogue gives: a primary and three fallbacks."""
    models = [
        routing_service_pb2.ScoredModel(
            model_id=str(uuid.UUID(int=10 + number)),
            provider_id=str(uuid.UUID(int=20 + number)),
            model_name=f"meta-llama/llama-3.{number}-70b-instruct",
            provider_name="OpenRouter",
            composite_score=0.91 - number / 16,
            cost_score=0.875,
            latency_score=0.8125,
            quality_score=0.86,
            input_cost_per_1m=0.59,
            output_cost_per_1m=0.79,
            avg_latency_ms=900,
            quality_rating=8.6,
            priority=50,
            display_name=f"Llama 3.{number} 70B Instruct",
            api_endpoint="https://openrouter.ai/api/v1",
        )
        for number in range(ROUTED)
    ]
    answer = routing_service_pb2.RouteResponse(
        primary=models[0],
        fallbacks=models[1:],
        total_options=ROUTED,
        decision_id=str(uuid.UUID(int=30)),
        catalog_snapshot=12,
        power_level=power_level_pb2.ECO,
    )
    return bytes(answer.SerializeToString())


async def main() -> None:
    behind = Behind(**json.loads(sys.argv[1]))

    async def decide(chat: ChatRequest, **_: object) -> Prepared:
        return prepared(chat)

    async def undo(_: Plan) -> None:
        """Forget nothing."""

    async def verify(_: str) -> Caller:
        return Caller(USER, frozenset())

    async def catalogue() -> list[Upstream]:
        return [Upstream(PROVIDER, f"http://127.0.0.1:{behind.provider_port}/v1")]

    unused: Any = None
    deciding: Any = SimpleNamespace(decide=decide, undo=undo)
    verifying: Any = SimpleNamespace(verify=verify)
    forgetting: Any = SimpleNamespace(add=lambda _: None)
    discovery = ClusterDiscovery(catalogue, spread_s=0.0)
    plans = PlansUnderWay()
    doors = ExtProc(verifying, deciding, unused, plans), AccessLog(forgetting, plans), discovery
    handlers = [door.handler() for door in doors]
    (gateway_port,) = free_ports(1)
    gateway = GatewayServer(f"127.0.0.1:{gateway_port}", behind.secret, handlers, reuse_port=False)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(base64.b64decode(behind.route)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await gateway.start()
    await discovery.start()
    sys.stdout.write(f"{port}\n{gateway_port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
