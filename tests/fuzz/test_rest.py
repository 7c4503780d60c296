"""Every path of the JSON API through the real Envoy, with hostile bodies, queries and headers, and near misses."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.again import wait_to_ask_again
from fuzz.conftest import CASES, IS_BOUNDED
from fuzz.hostile import BODIES, TEXTS, messages
from fuzz.laws import check_json_error, check_text
from fuzz.test_grpc import METHODS

if TYPE_CHECKING:
    from fuzz.conftest import Target

WAIT_S = 15.0
ANSWER_S = 0.5
NOT_UNDERSTOOD = "the request could not be understood"
"""Said before Envoy has given a request its id."""
SHARE = CASES * 3 // 10
fuzz = settings(
    max_examples=SHARE,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=IS_BOUNDED,
)


def bindings() -> list[tuple[str, str, Any]]:
    """Return verb, path and request kind of every RPC that has a path."""
    found = []
    for method in METHODS.values():
        options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
        if options.HasExtension(annotations_pb2.http):
            rule = options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            found.append((verb.upper(), getattr(rule, verb), method.input_type))
    return found


BINDINGS = bindings()
NAMES = sorted({field.name for *_, kind in BINDINGS for field in kind.fields})
SEGMENTS = st.sampled_from(["", ".", "..", "%2e%2e", "%2f", "a:verify", "%00", "x" * 3000, "%ff", "*", "{id}"])
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "x-user-id", "x-envoy-original-path", "x-envoy-retry-on", "grpc-timeout", "grpc-status", "te",
                "content-type", "cookie", "authorization", "x-request-id", "x-forwarded-for", "x-http-code",
                "x-http-method-override", "x-jwt-payload", "origin", "expect", "accept-encoding", "traceparent",
            ]
        ),
        st.sampled_from(
            ["", "1", "201", "9999999999S", "1n", "trailers", "application/grpc", "text/plain", "session=x; session=y",
             "Bearer x", "Bearer ", "https://evil.example", "100-continue", "gzip", "a" * 8000, "\x1b[31m", "%0d%0a"]
        ),
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, ids: list[str]) -> tuple[str, str, bytes, list[tuple[str, str]]]:
    verb, path, kind = draw(st.sampled_from(BINDINGS))
    values = st.sampled_from(ids) | st.sampled_from(TEXTS[:28]).map(lambda text: quote(text, safe="")) | SEGMENTS
    segments = [draw(values) if part.startswith("{") else part for part in path.strip("/").split("/")]
    path = "/" + "/".join(segments) + (":verify" if path.endswith(":verify") else "")
    if draw(st.integers(0, 9)) == 0:
        verb = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "FOO"]))
    if draw(st.booleans()):
        names = st.sampled_from(NAMES) | st.sampled_from(TEXTS[:20])
        query = draw(st.lists(st.tuples(names, st.sampled_from(TEXTS[:28] + ids[:3])), max_size=3))
        path += "?" + urlencode(query)
    body = draw(BODIES)
    if draw(st.booleans()):
        with contextlib.suppress(json_format.Error):  # JSON has no NaN in free-form objects
            shaped = json_format.MessageToDict(draw(messages(kind, ids)), preserving_proto_field_name=True)
            body = json.dumps(shaped).encode()[:500_000]
    return verb, path, b"" if verb in ("GET", "DELETE", "HEAD") and draw(st.booleans()) else body, draw(HEADERS)


def exchange(target: Target, request: bytes, verb: str) -> tuple[int, dict[str, str], bytes] | None:
    """Send bytes as they are; return the answer, or None when the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", target.stack.ports.http), timeout=WAIT_S) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=verb)
        try:
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        except (http.client.BadStatusLine, ConnectionResetError):
            return None


def wants_504(sent: bytes) -> bool:
    return b"grpc-timeout: 1n" in sent


def hold_to_the_laws(target: Target, verb: str, answer: tuple[int, dict[str, str], bytes], sent: bytes) -> None:
    status, headers, body = answer
    assert status < 500 or (status == 504 and wants_504(sent)), answer
    reason = ""
    if status >= 400 and verb != "HEAD":
        assert headers["content-type"] == "application/json", answer
        told = json.loads(body)
        reason = check_json_error(told)
        assert headers.get("x-request-id") or told["message"] == NOT_UNDERSTOOD, answer
    check_text(f"{headers} {body.decode(errors='replace')}", sent.decode(errors="replace"))
    target.outcomes[f"JSON {status} {reason}"] += 1


@pytest.mark.timeout(900)
def test_hostile_requests(target: Target) -> None:
    @fuzz
    @given(requests(target.ids), st.sampled_from(["user", "admin", "service", None]))
    def run(request: tuple[str, str, bytes, list[tuple[str, str]]], role: Any) -> None:
        verb, path, body, headers = request
        head = [f"{verb} {path} HTTP/1.1", "host: fuzz", f"content-length: {len(body)}", "connection: close"]
        if role:
            head.append(f"authorization: Bearer {target.token(role)}")
        head += [f"{name}: {value}" for name, value in headers]
        sent = "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body
        answer = exchange(target, sent, verb)
        if answer is not None and answer[0] in (503, 504) and not wants_504(sent):
            wait_to_ask_again(target.stack, target.outcomes)
            answer = exchange(target, sent, verb)
        if answer is None:
            target.outcomes["JSON closed"] += 1
        else:
            hold_to_the_laws(target, verb, answer, sent)
            if role == "user":
                assert str(target.owner).encode() not in answer[2] or str(target.owner).encode() in sent

    run()


BROKEN = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /api/v2/llm/models HTTP/0.9\r\n\r\n",
        b"POST /api/v2/llm/route HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"POST /api/v2/llm/route HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST /api/v2/llm/route HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n{}",
        b"GET /api/v2/llm/models HTTP/1.1\r\nhost: a\r\nbad header: x\r\n\r\n",
        b"GET /api/v2/llm/models HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        b"GET http://other/api/v2/llm/models HTTP/1.1\r\nhost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET /api/v2/llm/models HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ]
) | st.binary(min_size=1, max_size=80).map(lambda raw: raw + b"\r\n\r\n")


@pytest.mark.timeout(300)
def test_broken_http(target: Target) -> None:
    @settings(fuzz, max_examples=max(10, SHARE // 5))
    @given(BROKEN)
    def run(sent: bytes) -> None:
        with socket.create_connection(("127.0.0.1", target.stack.ports.http), timeout=WAIT_S) as connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(sent)
            try:
                answer = connection.recv(65536)
            except (TimeoutError, ConnectionResetError):
                answer = b""  # it waits for the rest, or has hung up
        check_text(answer.decode(errors="replace"), sent.decode(errors="replace"))
        status = answer[9:12].decode("ascii", "replace") if answer.startswith(b"HTTP/1.") else "no answer"
        assert not status.startswith("5"), answer
        target.outcomes[f"broken HTTP {status}"] += 1

    run()
