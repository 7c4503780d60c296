"""JSON to protobuf and back by Envoy, and how errors of the server come out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2, wrappers_pb2
from google.rpc import error_details_pb2

from llmrouter.v2 import routing_service_pb2, routing_service_pb2_grpc
from transcoding.edge_harness import API, MIB, Edge, assert_error, fail


class TestTranscoding:
    async def test_names_zeros_and_enums(self, edge: Edge) -> None:
        async def answer(*_: object) -> routing_service_pb2.RouteResponse:
            return routing_service_pb2.RouteResponse(primary={"model_name": "m"}, power_level="ECO")

        edge.server.answer = answer
        reply = await edge.call("POST", f"{API}/route", {"power_level": "eco", "taskType": "chat", "user_id": None})
        assert reply.json()["primary"]["input_cost_per_1m"] == 0
        assert reply.json()["power_level"] == "ECO"
        assert reply.json()["fallbacks"] == []
        (call,) = edge.server.calls
        assert call.request == routing_service_pb2.RouteRequest(power_level="ECO", task_type="chat")

    async def test_no_body_is_an_empty_message(self, edge: Edge) -> None:
        assert (await edge.call("POST", f"{API}/route")).status == 200
        assert edge.server.calls[0].request == routing_service_pb2.RouteRequest()

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("POST", "/llmrouter.v2.RoutingService/Route"),
            ("POST", "/llmrouter.v2.UsageService/RecordUsage"),
            ("POST", "/grpc.health.v1.Health/Check"),
            ("GET", API),
            ("GET", f"{API}/nothing"),
            ("PATCH", f"{API}/route"),
            ("GET", f"{API}/route"),
            ("GET", f"{API}/providers/a/b"),
            ("DELETE", f"{API}/byok/"),
        ],
    )
    async def test_unknown_paths_and_methods_are_404(self, edge: Edge, method: str, path: str) -> None:
        assert_error(await edge.call(method, path), 404, 5, "UNKNOWN_PATH", "no such path or method")
        assert edge.server.calls == []

    async def test_head_has_no_body(self, edge: Edge) -> None:
        reply = await edge.call("HEAD", f"{API}/settings")
        assert (reply.status, reply.body) == (404, b"")
        reply = await edge.call("HEAD", f"{API}/settings", headers={"content-type": "application/grpc"})
        assert (reply.status, reply.body) == (415, b"")

    async def test_unknown_query_parameters_are_refused_by_name(self, edge: Edge) -> None:
        reply = await edge.call("GET", f"{API}/models?power_levle=ECO")
        error = assert_error(reply, 400, 3, "MALFORMED_REQUEST")
        assert '"power_levle"' in error["message"]
        assert (await edge.call("GET", f"{API}/models?power_level=eco&page_size=2")).status == 200

    async def test_values_of_the_wrong_type_are_refused_by_name(self, edge: Edge) -> None:
        for body in ({"fallback_count": "many"}, {"fallback_count": -1}, {"power_level": "MAX"}):
            error = assert_error(await edge.call("POST", f"{API}/route", body), 400, 3, "MALFORMED_REQUEST")
            assert next(iter(body)) in error["message"]
        assert edge.server.calls == []

    @pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "Application/GRPC"])
    async def test_native_grpc_is_refused(self, edge: Edge, content_type: str) -> None:
        for path in (f"{API}/route", "/llmrouter.v2.RoutingService/Route"):
            reply = await edge.call("POST", path, b"\0\0\0\0\0", headers={"content-type": content_type})
            assert_error(reply, 415, 3, "UNSUPPORTED_MEDIA_TYPE")
        assert edge.server.calls == []

    async def test_a_grpc_client_gets_nowhere(self, edge: Edge) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
            stub = routing_service_pb2_grpc.RoutingServiceStub(channel)
            metadata = (("authorization", f"Bearer {edge.issuer.token()}"),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Route(routing_service_pb2.RouteRequest(), metadata=metadata, timeout=5)
        assert "415" in (caught.value.details() or "")
        assert edge.server.calls == []

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_body_may_have_one_mebibyte_and_no_more(self, edge: Edge, chunked: bool) -> None:
        for size, status in ((MIB, 200), (MIB + 1, 413)):
            body = b'{"task_type":"x"' + b" " * (size - 17) + b"}"
            assert len(body) == size
            if chunked:
                head = f"POST {API}/route HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
                head += f"authorization: Bearer {edge.issuer.token()}\r\n\r\n{size:x}\r\n"
                with suppress(ConnectionError):  # the edge may hang up on the rest of the body
                    assert b"HTTP/1.1 %d" % status in await edge.raw(head.encode() + body + b"\r\n0\r\n\r\n")
            else:
                reply = await edge.call("POST", f"{API}/route", body)
                assert reply.status == status
                if status == 413:
                    assert_error(reply, 413, 3, "BODY_TOO_LARGE", "the body is too large; the limit is 1 MiB")

    @pytest.mark.parametrize(
        ("request_head", "status"),
        [
            (b"GARBAGE\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426),
            (b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", 403),
            (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", 431),
            (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 404),
        ],
    )
    async def test_broken_http_gets_the_same_shape(self, edge: Edge, request_head: bytes, status: int) -> None:
        head, _, body = (await edge.raw(request_head)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert b"content-type: application/json" in head
        error = json.loads(body)
        assert type(error["code"]) is int
        assert error["message"]
        assert error["details"][0]["domain"] == "llmrouter"


class TestErrorsOfTheServer:
    @pytest.fixture(autouse=True)
    def made_up(self, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(edge, "contract", None)

    async def test_all_details_are_printed(self, edge: Edge) -> None:
        async def answer(_: Any, context: Any) -> None:
            violation = error_details_pb2.BadRequest.FieldViolation(field="a.b", description="must be c")
            await fail(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "a.b: must be c",
                error_details_pb2.ErrorInfo(reason="INVALID_FIELD", domain="llmrouter"),
                error_details_pb2.BadRequest(field_violations=[violation]),
                error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=42)),
                metadata=(("retry-after", "42"),),
            )

        edge.server.answer = answer
        reply = await edge.call("GET", f"{API}/settings")
        error = assert_error(reply, 400, 3, "INVALID_FIELD", "a.b: must be c")
        assert reply.headers["retry-after"] == "42"
        assert error["details"][1:] == [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": [{"field": "a.b", "description": "must be c", "reason": ""}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "42s"},
        ]

    @pytest.mark.parametrize(
        ("code", "status", "reason"),
        [
            (grpc.StatusCode.UNAUTHENTICATED, 401, "UNAUTHENTICATED"),
            (grpc.StatusCode.PERMISSION_DENIED, 403, "ROLE_REQUIRED"),
            (grpc.StatusCode.NOT_FOUND, 404, "RESOURCE_NOT_FOUND"),
            (grpc.StatusCode.ALREADY_EXISTS, 409, "ALREADY_EXISTS"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RATE_LIMITED"),
            (grpc.StatusCode.INTERNAL, 500, "INTERNAL"),
            (grpc.StatusCode.UNIMPLEMENTED, 501, "UNIMPLEMENTED"),
            (grpc.StatusCode.UNAVAILABLE, 503, "UNAVAILABLE"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"),
        ],
    )
    async def test_one_with_its_reason_passes_and_one_without_is_given_one(
        self, edge: Edge, code: grpc.StatusCode, status: int, reason: str
    ) -> None:
        async def explained(_: Any, context: Any) -> None:
            await fail(context, code, "said", error_details_pb2.ErrorInfo(reason="WHY", domain="llmrouter"))

        async def bare(_: Any, context: Any) -> None:
            await context.abort(code, "secret internals")

        edge.server.answer = explained
        assert_error(await edge.call("GET", f"{API}/settings"), status, code.value[0], "WHY", "said")
        edge.server.answer = bare
        reply = await edge.call("GET", f"{API}/settings")
        assert_error(reply, status, code.value[0], reason)
        assert b"secret" not in reply.body

    async def test_an_exception_and_a_detail_unknown_to_envoy_keep_the_shape(self, edge: Edge) -> None:
        async def raises(*_: object) -> None:
            raise RuntimeError("secret internals")

        async def unknown(_: Any, context: Any) -> None:
            await fail(context, grpc.StatusCode.NOT_FOUND, "said", wrappers_pb2.BytesValue(value=b"secret"))

        edge.server.answer = raises
        reply = await edge.call("GET", f"{API}/settings")
        assert_error(reply, 500, 13, "INTERNAL")
        assert b"secret" not in reply.body
        edge.server.answer = unknown
        assert_error(await edge.call("GET", f"{API}/settings"), 404, 5, "RESOURCE_NOT_FOUND")
