"""The edge alone: a real Envoy, with a stand-in for the server behind it."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from transcoding.edge_harness import API, ORIGIN, USER, Edge, Reply, assert_error

StartEdge = Callable[..., Awaitable[Edge]]


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
            {"nbf": int(time.time()) + 86_400},
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
        await edge.call("GET", f"{API}/settings", headers={"grpc-timeout": "6S"})
        default, asked = (call.time_left_s for call in edge.server.calls)
        assert default is not None
        assert asked is not None
        assert 0 < asked <= 6 < default <= 12

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


class TestHealthAndLimits:
    async def test_healthz_follows_the_server(self, own_edge: StartEdge) -> None:
        edge = await own_edge(is_strict=True)
        ok = await edge.call("GET", "/healthz", token=None)
        assert (ok.status, ok.json()) == (200, {"status": "ok"})
        await edge.server.serving(False)
        assert_error(await edge.until_status(503), 503, 14, "UNAVAILABLE")
        reply = await edge.call("GET", f"{API}/settings")
        assert_error(reply, 503, 14, "UNAVAILABLE")
        await edge.server.serving(True)
        await edge.until_status(200)
        await edge.until_status(200, f"{API}/settings")  # Envoy's workers hear of it a moment later

    async def test_a_server_that_is_down_is_503_at_once_and_comes_back(self, own_edge: StartEdge) -> None:
        edge = await own_edge(is_strict=True, deadline_s=30)
        await edge.server.stop()
        for _ in range(2):  # before the health check has seen it, and after
            started = time.perf_counter()
            reply = await edge.call("GET", f"{API}/settings")
            error = assert_error(reply, 503, 14, "UNAVAILABLE", "the service is unavailable, try again shortly")
            assert error["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
            assert reply.headers["retry-after"] == "1"
            assert time.perf_counter() - started < 15  # not only when the deadline passes
            await edge.until_status(503)
        await edge.server.start()
        await edge.until_status(200)
        await edge.until_status(200, f"{API}/settings")  # Envoy's workers hear of it a moment later

    @pytest.mark.parametrize("asked", [None, "100m", "1H"])
    async def test_a_slow_server_is_504(self, own_edge: StartEdge, asked: str | None) -> None:
        edge = await own_edge(deadline_s=1)

        async def answer(*_: object) -> None:
            await asyncio.sleep(30)

        edge.server.answer = answer
        started = time.perf_counter()
        reply = await edge.call("GET", f"{API}/settings", headers={"grpc-timeout": asked} if asked else {})
        assert_error(reply, 504, 4, "DEADLINE_EXCEEDED", "the deadline passed before the answer was ready")
        assert time.perf_counter() - started < 20
        most_s = {None: 3, "100m": 0.1, "1H": 3600}[asked]
        assert all((call.time_left_s or 0) <= most_s for call in edge.server.calls)  # none, when it came too late

    async def test_each_user_has_a_limit_and_all_together_have_one(self, own_edge: StartEdge) -> None:
        edge = await own_edge()

        async def burst(user: str, count: int) -> list[Reply]:
            token = edge.issuer.token(sub=user)
            return await asyncio.gather(*(edge.call("GET", f"{API}/settings", token=token) for _ in range(count)))

        limited: list[Reply] = []
        async with asyncio.timeout(120):
            while not limited:  # again, when a burst has taken seconds
                await asyncio.sleep(1)  # a full bucket
                limited = [reply for reply in await burst("a", 15) if reply.status != 200]
        assert len(limited) <= 10
        error = assert_error(limited[0], 429, 8, "RATE_LIMITED", "too many requests, try again in 1 s")
        assert error["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
        assert limited[0].headers["retry-after"] == "1"
        assert [reply.status for reply in await burst("b", 1)] == [200]
        statuses: set[int] = set()
        async with asyncio.timeout(120):
            while 429 not in statuses:
                await asyncio.sleep(1)
                everyone = await asyncio.gather(*(burst(f"user {number}", 2) for number in range(30)))
                statuses = {reply.status for replies in everyone for reply in replies}

    async def test_strangers_cannot_use_up_the_limit(self, own_edge: StartEdge) -> None:
        edge = await own_edge()

        async def knock(path: str) -> int:
            return (await edge.call("GET", path, token=None)).status

        statuses = await asyncio.gather(*(knock(path) for path in ["/nowhere", f"{API}/settings", "/healthz"] * 10))
        assert set(statuses) == {404, 401, 200}
        assert (await edge.call("GET", f"{API}/settings")).status == 200

    async def test_the_admin_interface_is_a_private_socket(self, edge: Edge) -> None:
        mode = edge.parameters.admin_socket.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
