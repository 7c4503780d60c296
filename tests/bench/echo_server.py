"""A bare grpc.aio server that answers every call with the same bytes: `python -m bench.echo_server <base64>`.

What Route could be at most, in one process, with grpc.aio on uvloop. With SAME after that, the process is set up as our
server's: its event loop, and gRPC's threads. With INTAKE, it takes calls in as our server too.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys

import grpc
import uvloop

from llmrouter_server.runtime.grpc_server import patient_threads
from llmrouter_server.runtime.intake import Intake, Loop

AS_IT_COMES, SAME, INTAKE = "", "same", "intake"
ASKED = ("/llmrouter.v2.RoutingService/Route", "/llmrouter.v2.UsageService/RecordUsage")


class Echo(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def call(_request: bytes, _context: object) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(call)

    def service(self, _details: object) -> grpc.RpcMethodHandler:
        return self._handler


async def main(answer: str, how: str) -> None:
    with patient_threads() if how else contextlib.nullcontext():
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
    uvloop.run(main(answer_, how_), loop_factory=Loop if how_ else uvloop.new_event_loop)
