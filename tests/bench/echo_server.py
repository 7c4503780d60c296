"""A bare grpc.aio server that answers every call with the same bytes: `python -m bench.echo_server <base64>`.

What Route could be at most, in one process, with grpc.aio on uvloop. With PATIENT after that, gRPC's threads are so,
as our server's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys

import grpc
import uvloop

from llmrouter_server.runtime.grpc_server import patient_threads

PATIENT = "patient"


class Echo(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def call(_request: bytes, _context: object) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(call)

    def service(self, _details: object) -> grpc.RpcMethodHandler:
        return self._handler


async def main() -> None:
    answer, *how = sys.argv[1:]
    with patient_threads() if how == [PATIENT] else contextlib.nullcontext():
        server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(base64.b64decode(answer)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
