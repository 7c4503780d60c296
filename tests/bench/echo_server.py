"""A bare grpc.aio server that answers every call with the same bytes: `python -m bench.echo_server <base64>`.

What Route could be at most, in one process, with grpc.aio on uvloop. With SAME after that, the process is set up as our
server's: how gRPC's threads wake Python's up. With INTAKE, it takes calls in as our server too. It also answers health
checks, for an Envoy before it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys

import grpc
import uvloop
from grpc_health.v1 import health_pb2

from llmrouter_server.gateway.server import CHECK
from llmrouter_server.runtime.grpc_server import few_wake_ups
from llmrouter_server.runtime.intake import Intake

HEALTHY = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
AS_IT_COMES, SAME, INTAKE = "", "same", "intake"
ASKED = ("/llmrouter.v2.RoutingService/Route", "/llmrouter.v2.UsageService/RecordUsage")


class Echo(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def call(_request: bytes, _context: object) -> bytes:
            return answer

        async def check(_request: bytes, _context: object) -> bytes:
            return HEALTHY

        self._handler = grpc.unary_unary_rpc_method_handler(call)
        self._health = grpc.unary_unary_rpc_method_handler(check)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._health if details.method == CHECK else self._handler


async def main(answer: str, how: str) -> None:
    with few_wake_ups() if how else contextlib.nullcontext():
        server = grpc.aio.server()
    echo = Echo(base64.b64decode(answer))
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await Intake(server, echo, ASKED if how == INTAKE else ()).start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, answer_, how_ = (*sys.argv, "")[:3]
    uvloop.run(main(answer_, how_))
