"""A real Envoy on free loopback ports, with a stand-in for the gRPC server behind it and an issuer of tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import any_pb2, message_factory
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from contract import Contract
from http_json import Answer
from llmrouter.v2 import (
    byok_service_pb2,
    model_service_pb2,
    provider_service_pb2,
    routing_service_pb2,
    settings_service_pb2,
    usage_service_pb2,
)
from llmrouter_server.runtime.envoy_config import ENVOY_ENV, EdgeParameters, envoy_command, render
from llmrouter_server.runtime.local_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

SERVICES = [
    service
    for module in (
        byok_service_pb2,
        model_service_pb2,
        provider_service_pb2,
        routing_service_pb2,
        settings_service_pb2,
        usage_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
]
ISSUER, AUDIENCE = "https://issuer.test", "llmrouter"
USER = "0190c0de-0000-7000-8000-000000000001"
ORIGIN = "https://console.example.com"
API = "/api/v2/llm"
MIB = 1 << 20
PATIENT = {"- {timeout: 1s, ": "- {timeout: 10s, ", "unhealthy_threshold: 2, ": "unhealthy_threshold: 5, "}
"""What is made of the health checks of the server."""


class Issuer:
    """Signs tokens with a key of each allowed kind; the keys of another generation have other ids."""

    def __init__(self, generation: str = "") -> None:
        self._generation = generation
        self._keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def jwks(self) -> str:
        """Return the public keys as a JWKS document."""
        kinds = (
            ("RS256", jwt.algorithms.RSAAlgorithm),
            ("ES256", jwt.algorithms.ECAlgorithm),
            ("EdDSA", jwt.algorithms.OKPAlgorithm),
        )
        keys = [
            json.loads(kind.to_jwk(self._keys[name].public_key()))
            | {"kid": self._generation + name, "alg": name, "use": "sig"}
            for name, kind in kinds
        ]
        return json.dumps({"keys": keys})

    def token(self, algorithm: str = "RS256", **changes: object) -> str:
        """Return a token that is good except for the changes; a claim changed to None is left out."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": USER,
            "exp": int(time.time()) + 600,
            "roles": ["user"],
        } | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        if algorithm == "none":
            return jwt.encode(claims, None, algorithm="none")
        if algorithm == "HS256":  # the public key as the secret, which PyJWT would not do
            secret = self._keys["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            parts = [{"alg": "HS256", "typ": "JWT", "kid": "RS256"}, claims]
            signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
            return (signed + b"." + _base64url(hmac.digest(secret, signed, hashlib.sha256))).decode()
        return jwt.encode(
            claims, self._keys[algorithm], algorithm=algorithm, headers={"kid": self._generation + algorithm}
        )


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


@dataclass(frozen=True)
class Call:
    """What reached the stand-in."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    time_left_s: float | None


class StandIn:
    """Answers every RPC of the API with an empty message, or as the test says, and notes what came.

    A stream has one empty message, or the `parts` of the test.
    """

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[Call] = []
        self.answer: Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Message | None]] | None = None
        self.parts: Callable[[grpc.aio.ServicerContext[Any, Any]], AsyncIterator[Message]] | None = None
        self.health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen; the second time on the same port."""
        self._server = grpc.aio.server()
        for service in SERVICES:
            handlers = {method.name: self._handler(method) for method in service.methods}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service.full_name, handlers),),
            )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        await self.serving(True)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    async def serving(self, yes: bool) -> None:
        """Answer health checks so from now on."""
        status = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.health.set("", status)

    def _handler(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)

        def note(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
            self.calls.append(Call(method.name, request, metadata, context.time_remaining()))

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            note(request, context)
            answer = await self.answer(request, context) if self.answer else None
            return response_class() if answer is None else answer

        async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            note(request, context)
            if self.parts is None:
                yield response_class()
                return
            async for part in self.parts(context):
                yield part

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, request_class.FromString, response_class.SerializeToString
            )
        return grpc.unary_unary_rpc_method_handler(call, request_class.FromString, response_class.SerializeToString)


async def fail(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    message: str,
    *details: Message,
    metadata: tuple[tuple[str, str], ...] = (),
) -> None:
    """Abort a call with google.rpc.Status details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort(code, message, (*metadata, ("grpc-status-details-bin", status.SerializeToString())))


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def assert_error(reply: Reply, status: int, code: int, reason: str, message: str | None = None) -> dict[str, Any]:
    """Check the one shape of errors, and return it."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert not [name for name in reply.headers if name.startswith(("grpc-", "x-envoy-", "x-http-code"))]
    error: dict[str, Any] = reply.json()
    assert set(error) == {"code", "message", "details"}
    assert type(error["code"]) is int
    assert error["code"] == code
    assert error["message"] == message if message is not None else error["message"]
    assert error["details"][0] == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "llmrouter",
        "metadata": {},
    }
    return error


@dataclass
class Edge:
    """Envoy in front of a stand-in."""

    folder: Path
    issuer: Issuer
    parameters: EdgeParameters
    server: StandIn = field(default_factory=StandIn)
    contract: Contract | None = field(default_factory=Contract)
    """What its errors must be; None where the stand-in makes up errors that the server would not."""
    _process: asyncio.subprocess.Process | None = None

    @classmethod
    async def start(cls, folder: Path, issuer: Issuer, *, is_strict: bool = False, **parameters: Any) -> Edge:
        """Start both and wait until the edge says that it is healthy.

        is_strict: its health checks are the product's; else they pass over a stand-in that stands still for a while.
        """
        if "jwks" not in parameters:
            parameters["jwks"] = str(folder / "jwks.json")
            (folder / "jwks.json").write_text(issuer.jwks())
        edge = cls(
            folder,
            issuer,
            EdgeParameters(
                issuer=ISSUER,
                audience=AUDIENCE,
                listen_address=f"127.0.0.1:{free_ports(1)[0]}",
                admin_socket=folder / "admin.sock",
                access_log=folder / "access.log",
                **parameters,
            ),
        )
        await edge.server.start()
        edge.parameters = replace(edge.parameters, server_address=f"127.0.0.1:{edge.server.port}")
        config_file = folder / "envoy.yaml"
        config = render(edge.parameters)
        if not is_strict:
            for strict, patient in PATIENT.items():
                assert config.count(strict) == 1
                config = config.replace(strict, patient)
        config_file.write_text(config)
        command = envoy_command(config_file, concurrency=1)
        with (folder / "envoy.log").open("wb") as log:
            env = os.environ | ENVOY_ENV
            edge._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=env)
        try:
            await edge.until_status(200)
        except BaseException:
            await edge.stop()
            raise
        return edge

    async def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()
        await self.server.stop()

    @property
    def port(self) -> int:
        return int(self.parameters.listen_address.rpartition(":")[2])

    async def until_status(self, status: int, path: str = "/healthz") -> Reply:
        """Ask until the answer has this status, at most 20 s."""
        async with asyncio.timeout(20):
            while True:
                try:
                    reply = await self.call("GET", path)
                except OSError:
                    reply = None
                if reply is not None and reply.status == status:
                    return reply
                assert self._process is None or self._process.returncode is None, (
                    self.folder / "envoy.log"
                ).read_text()
                await asyncio.sleep(0.05)

    async def call(
        self,
        method: str,
        path: str,
        body: str | bytes | object = None,
        *,
        token: str | None = "good",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request; a body that is no text is sent as JSON, and the token is a good bearer token unless given."""
        raw = (
            body
            if body is None or isinstance(body, bytes)
            else (body if isinstance(body, str) else json.dumps(body)).encode()
        )
        sent = dict(headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {self.issuer.token() if token == 'good' else token}"
        reply = await asyncio.to_thread(self._send, method, path, raw, sent)
        self._hold(method, path, reply)
        return reply

    def _hold(self, method: str, path: str, reply: Reply) -> None:
        """What is good comes from the stand-in, which knows nothing of the document."""
        if reply.status >= 400 and self.contract is not None and self.contract.operation(method, path) is not None:
            self.contract.hold(method, path, None, Answer(reply.status, reply.headers, reply.json()))

    async def raw(self, request: bytes) -> bytes:
        """Send bytes and return what comes back until the edge closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return Reply(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()


def assert_malformed(reply: Reply, message: str) -> None:
    assert_error(reply, 400, 3, "MALFORMED_REQUEST", message)
