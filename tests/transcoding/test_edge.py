"""The edge alone: a real Envoy, with a stand-in for the server behind it."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2, json_format, wrappers_pb2
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrouter.v2 import provider_service_pb2, routing_service_pb2, routing_service_pb2_grpc, settings_service_pb2
from transcoding.edge_harness import USER, Edge, Issuer, Reply, assert_error, fail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import Descriptor

ORIGIN = "https://console.example.com"
API = "/api/v2/llm"
MIB = 1 << 20


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_edge(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    edge = await Edge.start(
        tmp_path_factory.mktemp("edge"),
        issuer,
        allowed_origins=(ORIGIN,),
        cors_origin_regex=r"https://[a-z]+\.preview\.example\.com",
        user_requests_per_s=100_000,
        global_requests_per_s=100_000,
    )
    yield edge
    await edge.stop()


@pytest.fixture
def edge(shared_edge: Edge) -> Edge:
    shared_edge.server.calls.clear()
    shared_edge.server.answer = None
    return shared_edge


@pytest_asyncio.fixture(loop_scope="session")
async def strict_edge(issuer: Issuer, tmp_path: Any) -> AsyncIterator[Edge]:
    """One of its own, with low limits, whose server may be stopped."""
    edge = await Edge.start(tmp_path, issuer, user_requests_per_s=5, global_requests_per_s=20, deadline_s=1)
    yield edge
    await edge.stop()


def assert_malformed(reply: Reply, message: str) -> None:
    assert_error(reply, 400, 3, "MALFORMED_REQUEST", message)


class TestTokens:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    async def test_good_ones_pass_in_the_header_and_in_the_cookie(self, edge: Edge, algorithm: str) -> None:
        token = edge.issuer.token(algorithm)
        assert (await edge.call("GET", f"{API}/settings", token=token)).status == 200
        reply = await edge.call("GET", f"{API}/settings", token=None, headers={"cookie": f"a=b; session={token}"})
        assert reply.status == 200
        assert [call.metadata["authorization"] for call in edge.server.calls] == [f"Bearer {token}"] * 2

    @pytest.mark.parametrize(
        "bad",
        [
            {"algorithm": "none"},
            {"algorithm": "HS256"},
            {"exp": int(time.time()) - 60},
            {"exp": None},
            {"nbf": int(time.time()) + 600},
            {"aud": "another"},
            {"aud": None},
            {"iss": "https://another.test"},
        ],
    )
    async def test_bad_ones_are_401(self, edge: Edge, bad: dict[str, Any]) -> None:
        token = edge.issuer.token(**bad)
        for headers in ({"authorization": f"Bearer {token}"}, {"cookie": f"session={token}"}):
            reply = await edge.call("GET", f"{API}/settings", token=None, headers=headers)
            assert_error(reply, 401, 16, "UNAUTHENTICATED", "a valid bearer token is required")
            assert reply.headers["www-authenticate"] == "Bearer"
        assert edge.server.calls == []

    async def test_a_token_is_needed_and_only_looked_for_where_it_belongs(self, edge: Edge) -> None:
        good = edge.issuer.token()
        forged = good[:-8] + ("AAAAAAAA" if not good.endswith("AAAAAAAA") else "BBBBBBBB")
        for path, headers in (
            ("/settings", {}),
            ("/settings", {"authorization": f"Bearer {forged}"}),
            ("/settings", {"authorization": good}),
            ("/settings", {"x-token": good}),
            (f"/settings?access_token={good}", {}),
            # Credentials in the URL must not open a way past the csrf filter for the cookie.
            ("/settings", {"authorization": "Basic YTpi", "cookie": f"session={good}"}),
        ):
            reply = await edge.call("PUT", API + path, {}, token=None, headers=headers)
            assert_error(reply, 401, 16, "UNAUTHENTICATED")
        assert edge.server.calls == []


class TestCookies:
    def cookie(self, edge: Edge, **headers: str) -> dict[str, str]:
        given = {"cookie": f"session={edge.issuer.token()}", "content-type": "application/json"}
        return given | {name.replace("_", "-"): value for name, value in headers.items()}

    @pytest.mark.parametrize("origin", [None, "null", "https://evil.example.com", "https://a.preview.example.com", ""])
    async def test_writes_from_elsewhere_are_refused(self, edge: Edge, origin: str | None) -> None:
        headers = self.cookie(edge) | ({} if origin is None else {"origin": origin})
        reply = await edge.call("POST", f"{API}/route", {}, token=None, headers=headers)
        assert_error(reply, 403, 7, "ORIGIN_NOT_ALLOWED", "the request's origin is not allowed")
        assert edge.server.calls == []

    async def test_writes_from_the_edge_itself_and_the_allowed_origins_pass(self, edge: Edge) -> None:
        for origin in (ORIGIN, f"http://127.0.0.1:{edge.port}"):
            reply = await edge.call("POST", f"{API}/route", {}, token=None, headers=self.cookie(edge, origin=origin))
            assert reply.status == 200

    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
    )
    async def test_a_body_must_be_json(self, edge: Edge, content_type: str) -> None:
        headers = self.cookie(edge, origin=ORIGIN, content_type=content_type)
        reply = await edge.call("POST", f"{API}/route", {}, token=None, headers=headers)
        assert_error(reply, 415, 3, "UNSUPPORTED_MEDIA_TYPE", "content-type must be application/json")
        assert edge.server.calls == []

    async def test_a_charset_may_follow(self, edge: Edge) -> None:
        headers = self.cookie(edge, origin=ORIGIN, content_type="Application/JSON; charset=utf-8")
        assert (await edge.call("POST", f"{API}/route", {}, token=None, headers=headers)).status == 200

    async def test_a_bearer_token_needs_neither_origin_nor_content_type(self, edge: Edge) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded", "origin": "https://evil.example.com"}
        assert (await edge.call("POST", f"{API}/route", {}, headers=headers)).status == 200


class TestCors:
    async def preflight(self, edge: Edge, origin: str) -> Reply:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return await edge.call("OPTIONS", f"{API}/route", token=None, headers=headers)

    @pytest.mark.parametrize("origin", [ORIGIN, "https://branch.preview.example.com"])
    async def test_allowed_origins_may_send_and_read(self, edge: Edge, origin: str) -> None:
        reply = await self.preflight(edge, origin)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == origin
        assert reply.headers["access-control-allow-credentials"] == "true"
        assert reply.headers["access-control-allow-headers"] == "authorization, content-type, x-request-id"
        error = await edge.call("GET", f"{API}/settings", token=None, headers={"origin": origin})
        assert error.status == 401
        assert error.headers["access-control-allow-origin"] == origin
        assert error.headers["access-control-expose-headers"] == "x-request-id, retry-after"

    @pytest.mark.parametrize(
        "origin", ["https://evil.example.com", f"{ORIGIN}.evil.com", "https://consoleXexample.com"]
    )
    async def test_others_may_not(self, edge: Edge, origin: str) -> None:
        reply = await self.preflight(edge, origin)
        assert_error(reply, 404, 5, "UNKNOWN_PATH")
        assert "access-control-allow-origin" not in reply.headers


class TestHeaders:
    async def test_only_what_the_server_may_see_reaches_it(self, edge: Edge) -> None:
        smuggled = {
            "x-user-id": "admin",
            "x_user_id": "admin",
            "x-envoy-original-path": "/spoofed",
            "x-envoy-upstream-rq-timeout-ms": "1",
            "x-client-request-id": "spoofed",
            "cookie": "session=other; theme=dark",
            "data-bin": "%%%",
            "grpc-timeout": "soon",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        assert (await edge.call("GET", f"{API}/settings", headers=smuggled)).status == 200
        (call,) = edge.server.calls
        assert set(call.metadata) == {
            "authorization",
            "traceparent",
            "x-request-id",
            "x-envoy-original-path",  # Envoy's own
            "x-envoy-original-method",
        }
        assert call.metadata["x-envoy-original-path"] == f"{API}/settings"
        assert call.metadata["x-request-id"] != "spoofed"

    async def test_a_sane_request_id_makes_the_round_trip(self, edge: Edge) -> None:
        reply = await edge.call("GET", f"{API}/settings", headers={"x-request-id": "My.id_1-" + "x" * 120})
        assert reply.headers["x-request-id"] == "My.id_1-" + "x" * 120
        assert edge.server.calls[0].metadata["x-request-id"] == reply.headers["x-request-id"]
        error = await edge.call("GET", "/nowhere", token=None, headers={"x-request-id": "mine"})
        assert error.headers["x-request-id"] == "mine"

    @pytest.mark.parametrize("bad", [None, "", "x" * 129, "a b", "a,b", 'a"b', "é"])
    async def test_any_other_is_replaced(self, edge: Edge, bad: str | None) -> None:
        reply = await edge.call("GET", f"{API}/settings", headers={} if bad is None else {"x-request-id": bad})
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", reply.headers["x-request-id"])
        assert edge.server.calls[0].metadata["x-request-id"] == reply.headers["x-request-id"]

    async def test_the_servers_trailing_request_id_does_not_double_it(self, edge: Edge) -> None:
        async def answer(_: Any, context: Any) -> None:
            context.set_trailing_metadata((("x-request-id", "mine"),))

        edge.server.answer = answer
        reply = await edge.raw(
            f"GET {API}/settings HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-id: mine\r\n"
            f"authorization: Bearer {edge.issuer.token()}\r\n\r\n".encode()
        )
        assert reply.count(b"x-request-id: mine") == 1

    async def test_201_and_retry_after_come_from_initial_metadata(self, edge: Edge) -> None:
        async def answer(_: Any, context: Any) -> None:
            await context.send_initial_metadata((("x-http-code", "201"), ("retry-after", "7")))

        edge.server.answer = answer
        reply = await edge.call("POST", f"{API}/providers", {"name": "x"})
        assert reply.status == 201
        assert reply.headers["retry-after"] == "7"
        assert not [name for name in reply.headers if name.startswith(("grpc-", "x-http-code", "x-envoy"))]

    @pytest.mark.parametrize("code", ["500", "2010", "abc"])
    async def test_other_codes_are_ignored(self, edge: Edge, code: str) -> None:
        async def answer(_: Any, context: Any) -> None:
            await context.send_initial_metadata((("x-http-code", code),))

        edge.server.answer = answer
        assert (await edge.call("GET", f"{API}/settings")).status == 200

    async def test_deadlines(self, edge: Edge) -> None:
        await edge.call("GET", f"{API}/settings")
        await edge.call("GET", f"{API}/settings", headers={"grpc-timeout": "3S"})
        default, asked = (call.time_left_s for call in edge.server.calls)
        assert default is not None
        assert 10 < default <= 12
        assert asked is not None
        assert 2 < asked <= 3

    async def test_the_access_log_has_no_secrets(self, edge: Edge) -> None:
        token = edge.issuer.token()
        headers = {"x-request-id": "log-me"}
        await edge.call("PUT", f"{API}/settings?secret=canary", '{"a":"canary"}', token=token, headers=headers)
        log = edge.folder / "access.log"
        async with asyncio.timeout(10):
            while "log-me" not in log.read_text():
                await asyncio.sleep(0.05)
        (line,) = [line for line in log.read_text().splitlines() if "log-me" in line]
        entry = json.loads(line)
        assert entry["time"]
        assert type(entry["duration_ms"]) is int
        assert {name: entry[name] for name in ("method", "path", "status", "flags", "user_id")} == {
            "method": "PUT",
            "path": f"{API}/settings",
            "status": 400,
            "flags": "-",
            "user_id": USER,
        }
        everything = log.read_text() + (edge.folder / "envoy.log").read_text()
        assert "canary" not in everything
        assert token not in everything
        assert "/spoofed" not in everything


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


class TestRequestCheck:
    @pytest.mark.parametrize(
        ("method", "path", "body", "message"),
        [
            ("POST", "/route", '{"fallbackcount": 1}', 'unknown field "fallbackcount"'),
            ("POST", "/route", '{"": 1}', 'unknown field ""'),
            ("POST", "/route", r'{"task\u005Ftypo": 1}', 'unknown field "task_typo"'),
            ("POST", "/route", r'{"task_type\u0000": 1}', 'unknown field "task_type?"'),
            ("POST", "/route", '{"naïve": 1}', 'unknown field "na??ve"'),
            ("POST", "/route", '{"%s": 1}' % ("x" * 200), f'unknown field "{"x" * 125}..."'),
            ("PUT", "/settings", '{"routing_config": {"cost": 1}}', 'unknown field "routing_config.cost"'),
            ("PUT", "/settings", '{"routing_config": [{"cost": 1}]}', 'unknown field "routing_config[0].cost"'),
            ("POST", "/route", '{"task_type": "a", "task_type": "b"}', 'the field "task_type" is given twice'),
            ("POST", "/route", '{"task_type": "a", "taskType": "b"}', 'the field "taskType" is given twice'),
            ("POST", "/route", r'{"task_type": "a", "task\u005ftype": "b"}', 'the field "task_type" is given twice'),
            ("POST", "/route", '{"task_type": {"a": 1}}', 'the field "task_type" must not be an object'),
            ("PUT", "/providers/x", '{"provider_id": "y"}', 'the field "provider_id" is set by the path'),
            ("PUT", "/providers/x", '{"providerId": "y"}', 'the field "provider_id" is set by the path'),
            ("GET", "/settings", '{"a": 1}', 'unknown field "a"'),
            ("DELETE", "/byok/x", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/%72oute", '{"a": 1}', 'unknown field "a"'),
            ("POST", "//route", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/x/../route?user_id=", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/route", "[]", "the body must be a JSON object"),
            ("POST", "/route", "null", "the body must be a JSON object"),
            ("POST", "/route", " ", "the body must be a JSON object"),
            ("POST", "/route", "{'task_type': 1}", "the body is not valid JSON at byte 2"),
            ("POST", "/route", "{task_type: 1}", "the body is not valid JSON at byte 2"),
            ("POST", "/route", '{"task_type": 1,}', "the body is not valid JSON at byte 17"),
            ("POST", "/route", "{} {}", "the body is not valid JSON at byte 4"),
            ("POST", "/route", '{"task_type": 01}', "the body is not valid JSON at byte 16"),
            (
                "POST",
                "/providers",
                '{"config": ' + '{"a":' * 32 + "1" + "}" * 33,
                "the body is nested more than 32 levels deep",
            ),
            ("POST", "/providers", '{"config": ' + "[" * 100_000, "the body is nested more than 32 levels deep"),
        ],
    )
    async def test_what_is_refused(self, edge: Edge, method: str, path: str, body: str, message: str) -> None:
        assert_malformed(await edge.call(method, API + path, body), message)
        assert edge.server.calls == []

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/route", r'{ "task\u005ftype" : "a", "requiredCapabilities":["b"] , "user_id":null}'),
            ("PUT", "/settings", '{"routing_config": {"costWeight": 1e-1}, "clear_monthly_budget": false}'),
            ("PUT", "/settings", '{"routing_config": null}'),
            ("POST", "/providers", '{"config": {"any": {"thing": [1, {"goes": null}]}, "": "é", "name": 1}}'),
            ("POST", "/providers", '{"config": ' + '{"a":' * 31 + "1" + "}" * 32),
            ("GET", "/settings", "{}"),
        ],
    )
    async def test_what_passes(self, edge: Edge, method: str, path: str, body: str) -> None:
        reply = await edge.call(method, API + path, body)
        assert reply.status == 200, reply.body
        (call,) = edge.server.calls
        assert call.request == json_format.Parse(body, type(call.request)())

    async def test_a_body_of_one_mebibyte_is_walked_quickly(self, edge: Edge) -> None:
        body = '{"config":{"a":"' + "x" * (MIB - 1000) + '"},"b":1}'
        started = time.perf_counter()
        assert_malformed(await edge.call("POST", f"{API}/providers", body), 'unknown field "b"')
        assert time.perf_counter() - started < 1


NAMES = st.sampled_from(
    ["name", "config", "provider_type", "providerType", "requires_byok", "routing_config", "routingConfig", "strategy"]
) | st.sampled_from(["cost_weight", "costWeight", "power_level", "preferred_power_level", "user_id", "userId", "x", ""])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)
)
CONTAINERS = st.integers(1, 34).map(lambda depth: "[" * depth + "]" * depth)


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON text: mostly an object of mostly known names, spelt in odd ways, now and then with a byte wrong."""
    kind = draw(st.integers(0, 9))
    if depth > 0 and (depth > 3 or kind < 4):
        return draw(st.one_of(SCALARS.map(json.dumps), CONTAINERS))
    if depth > 0 and kind == 4:
        return "[" + ",".join(draw(st.lists(documents(depth + 1), max_size=2))) + "]"
    members = []
    for name in draw(st.lists(NAMES, max_size=4)):
        spelt = json.dumps(name)
        if name and draw(st.booleans()) and draw(st.booleans()):
            spelt = f'"\\u{ord(name[0]):04x}{name[1:]}"'
        space = draw(st.sampled_from(["", " ", "\n\t"]))
        members.append(f"{space}{spelt}{space}:{space}{draw(documents(depth + 1))}{space}")
    text = "{" + ",".join(members) + "}"
    if depth == 0 and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(["", ",", '"', "}", "0", "\\", "'", "-", ".", "e"])) + text[at + 1 :]
    return text or " "


class Members(list[tuple[str, Any]]):
    """The members of a JSON object, duplicates and all."""


def _no_constant(name: str) -> None:
    raise ValueError(name)


def acceptable(text: str, message: Descriptor) -> bool:
    """Judge a body as the edge should: strict JSON, known fields once each, no object in a plain field, 32 levels."""
    try:
        value = json.loads(text, object_pairs_hook=Members, parse_constant=_no_constant)
    except ValueError:
        return False
    return isinstance(value, Members) and _depth(value) <= 32 and _fits(value, message)


def _depth(value: Any) -> int:
    inner = [each for _, each in value] if isinstance(value, Members) else value
    return 1 + max(map(_depth, inner), default=0) if isinstance(inner, list) else 0


def _fits(value: Any, message: Descriptor | None) -> bool:
    if isinstance(value, Members):
        if message is None:
            return False
        fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
        names = [fields[name].name for name, _ in value if name in fields]
        return len(names) == len(value) == len(set(names)) and all(
            (fields[name].message_type is not None and fields[name].message_type.full_name == "google.protobuf.Struct")
            or _fits(each, fields[name].message_type)
            for name, each in value
        )
    return all(_fits(each, message) for each in value) if isinstance(value, list) else True


@settings(max_examples=400, deadline=None)
@given(
    text=documents(),
    path=st.sampled_from([("POST", "/providers"), ("PUT", "/settings"), ("POST", "/route")]),
)
async def test_the_check_agrees_with_pythons_json_and_the_descriptors(
    shared_edge: Edge, text: str, path: tuple[str, str]
) -> None:
    message = {
        "/providers": provider_service_pb2.CreateProviderRequest,
        "/settings": settings_service_pb2.UpdateSettingsRequest,
        "/route": routing_service_pb2.RouteRequest,
    }[path[1]].DESCRIPTOR
    shared_edge.server.answer = None
    reply = await shared_edge.call(path[0], API + path[1], text)
    if reply.status == 503:  # while Hypothesis thinks, nobody answers Envoy's health checks
        await shared_edge.until_status(200, f"{API}/settings")
        reply = await shared_edge.call(path[0], API + path[1], text)
    refused = reply.status == 400 and reply.json()["message"].startswith(("unknown field ", "the field ", "the body "))
    assert reply.status in (200, 400)
    assert refused is not acceptable(text, message), reply.body


class TestHealthAndLimits:
    async def test_healthz_follows_the_server(self, strict_edge: Edge) -> None:
        ok = await strict_edge.call("GET", "/healthz", token=None)
        assert (ok.status, ok.json()) == (200, {"status": "ok"})
        await strict_edge.server.serving(False)
        assert_error(await strict_edge.until_status(503), 503, 14, "UNAVAILABLE")
        reply = await strict_edge.call("GET", f"{API}/settings")
        assert_error(reply, 503, 14, "UNAVAILABLE")
        await strict_edge.server.serving(True)
        await strict_edge.until_status(200)
        await strict_edge.until_status(200, f"{API}/settings")  # Envoy's workers hear of it a moment later

    async def test_a_server_that_is_down_is_503_at_once_and_comes_back(self, strict_edge: Edge) -> None:
        await strict_edge.server.stop()
        for _ in range(2):  # before the health check has seen it, and after
            started = time.perf_counter()
            reply = await strict_edge.call("GET", f"{API}/settings")
            error = assert_error(reply, 503, 14, "UNAVAILABLE", "the service is unavailable, try again shortly")
            assert error["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
            assert reply.headers["retry-after"] == "1"
            assert time.perf_counter() - started < 0.5
            await strict_edge.until_status(503)
        await strict_edge.server.start()
        await strict_edge.until_status(200)
        await strict_edge.until_status(200, f"{API}/settings")  # Envoy's workers hear of it a moment later

    @pytest.mark.parametrize("asked", [None, "100m", "1H"])
    async def test_a_slow_server_is_504(self, strict_edge: Edge, asked: str | None) -> None:
        async def answer(*_: object) -> None:
            await asyncio.sleep(30)

        strict_edge.server.answer = answer
        started = time.perf_counter()
        reply = await strict_edge.call("GET", f"{API}/settings", headers={"grpc-timeout": asked} if asked else {})
        assert_error(reply, 504, 4, "DEADLINE_EXCEEDED", "the deadline passed before the answer was ready")
        assert time.perf_counter() - started < (0.9 if asked == "100m" else 3)

    async def test_each_user_has_a_limit_and_all_together_have_one(self, strict_edge: Edge) -> None:
        async def burst(user: str, count: int) -> list[Reply]:
            token = strict_edge.issuer.token(sub=user)
            return await asyncio.gather(
                *(strict_edge.call("GET", f"{API}/settings", token=token) for _ in range(count))
            )

        await asyncio.sleep(1)  # a full bucket
        replies = await burst("a", 15)
        limited = [reply for reply in replies if reply.status != 200]
        assert 1 <= len(limited) <= 10
        error = assert_error(limited[0], 429, 8, "RATE_LIMITED", "too many requests, try again in 1 s")
        assert error["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
        assert limited[0].headers["retry-after"] == "1"
        assert [reply.status for reply in await burst("b", 1)] == [200]
        await asyncio.sleep(1)
        everyone = await asyncio.gather(*(burst(f"user {number}", 2) for number in range(30)))
        assert any(reply.status == 429 for replies in everyone for reply in replies)

    async def test_strangers_cannot_use_up_the_limit(self, strict_edge: Edge) -> None:
        async def knock(path: str) -> int:
            return (await strict_edge.call("GET", path, token=None)).status

        statuses = await asyncio.gather(*(knock(path) for path in ["/nowhere", f"{API}/settings", "/healthz"] * 10))
        assert set(statuses) == {404, 401, 200}
        assert (await strict_edge.call("GET", f"{API}/settings")).status == 200

    async def test_the_admin_interface_is_a_private_socket(self, strict_edge: Edge) -> None:
        mode = strict_edge.parameters.admin_socket.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
