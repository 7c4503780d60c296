from __future__ import annotations

import dataclasses
import re
import socket
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envoy_process import STUB, ask, bootstrap, envoy
from hostile_provider import Authority, answer, hostile_provider, send
from llmrouter_server.catalog.provider import endpoint_problem
from llmrouter_server.catalog.snapshot import Snapshot
from llmrouter_server.gateway.clusters import (
    Upstream,
    Upstreams,
    cluster_message,
    cluster_name,
    cluster_of,
    endpoint_of,
    upstreams_of,
)
from llmrouter_server.runtime.local_ports import free_ports
from unit.seed_catalog import MODELS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from pathlib import Path

ID = uuid.UUID("018f0000-0000-7000-8000-000000000001")
PLACES = {"ca_file": "/etc/ssl/ca.pem", "lua_dir": "/opt/lua"}
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


def cluster(endpoint: str, **places: str) -> dict[str, Any]:
    return cluster_of(Upstream(ID, endpoint), **(PLACES | places))


def addresses(of: dict[str, Any]) -> list[tuple[str, int]]:
    found = [
        each["endpoint"]["address"]["socket_address"]
        for group in of["load_assignment"]["endpoints"]
        for each in group["lb_endpoints"]
    ]
    return [(each["address"], each["port_value"]) for each in found]


def lua(of: dict[str, Any]) -> str:
    (options,) = of["typed_extension_protocol_options"].values()
    return options["http_filters"][0]["typed_config"]["default_source_code"]["inline_string"]


def lua_arguments(of: dict[str, Any]) -> list[str]:
    """Read the strings that Lua is given as Lua would."""
    (call,) = re.findall(r"on_request\(h, (.*)\) end", lua(of))
    texts = re.findall(r'"((?:[^"\\]|\\\d{3})*)"', call)
    assert call == ", ".join(f'"{text}"' for text in texts)
    return [re.sub(rb"\\(\d{3})", lambda code: bytes([int(code[1])]), text.encode()).decode() for text in texts]


@pytest.mark.parametrize(
    ("endpoint", "host", "port", "authority", "prefix"),
    [
        ("https://api.groq.com/openai/v1", "api.groq.com", 443, "api.groq.com", "/openai/v1"),
        ("https://API.Groq.com:443/openai/v1/", "api.groq.com", 443, "api.groq.com", "/openai/v1"),
        ("https://api.groq.com.:8443", "api.groq.com", 8443, "api.groq.com:8443", ""),
        ("http://localhost:8000/v1", "localhost", 8000, "localhost:8000", "/v1"),
        ("http://localhost:80/", "localhost", 80, "localhost", ""),
        ("http://localhost:443/", "localhost", 443, "localhost:443", ""),
        ("https://192.0.2.7/v1", "192.0.2.7", 443, "192.0.2.7", "/v1"),
        ("https://[2001:DB8:0::7]:444/v1", "2001:db8::7", 444, "[2001:db8::7]:444", "/v1"),
        ("https://a.test/á/%41/100%/%zz", "a.test", 443, "a.test", "/%C3%A1/%41/100%25/%25zz"),
        ('https://a.test/"]]--\\', "a.test", 443, "a.test", "/%22%5D%5D--%5C"),
    ],
)
def test_an_endpoint_is_taken_apart(endpoint: str, host: str, port: int, authority: str, prefix: str) -> None:
    found = endpoint_of(endpoint)
    assert (found.host, found.port, found.authority, found.path_prefix) == (host, port, authority, prefix)
    assert lua_arguments(cluster(endpoint)) == [str(ID), authority, prefix]
    assert addresses(cluster(endpoint)) == [(host, port), ("127.0.0.1", 1)]


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "ftp://a.test/",
        "https:///v1",
        "https://user:secret@a.test/v1",
        "https://a.test:0/v1",
        "https://a.test:99999/v1",
        "https://a.test/v1?key=1",
        "https://a.test/\n",
        "http://[fe80::1%eth0]/v1",
        "https://" + "a" * 254 + "/v1",
    ],
)
def test_an_endpoint_that_is_no_usable_url_gets_no_cluster(endpoint: str) -> None:
    with pytest.raises(ValueError, match="api_endpoint"):
        cluster(endpoint)


URLS = st.builds(
    "{}://{}{}/{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.test", "A-b.test.", "localhost", "127.0.0.1", "[::1]", "x_y"]),
    st.one_of(st.just(""), st.integers(1, 65_535).map(":{}".format)),
    st.text(st.characters(min_codepoint=32, codec="utf-8"), max_size=40),
)


@given(URLS)
def test_every_endpoint_that_the_catalogue_takes_becomes_a_message_and_cannot_leave_its_string(endpoint: str) -> None:
    if endpoint_problem(endpoint, allow_private=True) is not None:
        with pytest.raises(ValueError, match="api_endpoint"):
            cluster(endpoint)
        return
    made = cluster(endpoint)
    assert cluster_message(made).name == f"provider-{ID}"
    _, authority, prefix = lua_arguments(made)
    assert re.fullmatch(r"[a-z0-9._:\[\]-]+", authority)
    assert re.fullmatch(r"(/[A-Za-z0-9%:@!$&'()*+,;=~._/-]*)?", prefix)
    assert not prefix.endswith("/")
    assert not re.search(r"%(?![0-9A-Fa-f]{2})", prefix)
    written = endpoint.split("/", 3)[3]
    assert unquote(prefix, errors="surrogateescape") == unquote(f"/{written}".rstrip("/"), errors="surrogateescape")


def test_a_name_is_looked_up_and_an_address_is_not() -> None:
    named, literal = cluster("https://a.test/v1"), cluster("https://192.0.2.7/v1")
    assert (named["type"], named["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
    assert literal["type"] == "STATIC"
    assert not any("dns" in key for key in literal)


def test_a_name_is_verified_by_name_and_an_address_by_address() -> None:
    for endpoint, sni, kind, exact in (
        ("https://a.test/v1", "a.test", "DNS", "a.test"),
        ("https://192.0.2.7/v1", "", "IP_ADDRESS", "192.0.2.7"),
        ("https://[::1]/v1", "", "IP_ADDRESS", "::1"),
    ):
        tls = cluster(endpoint)["transport_socket"]["typed_config"]
        validation = tls["common_tls_context"]["validation_context"]
        assert tls["sni"] == sni
        assert validation["match_typed_subject_alt_names"] == [{"san_type": kind, "matcher": {"exact": exact}}]
        assert validation["trusted_ca"] == {"filename": "/etc/ssl/ca.pem"}
    assert "transport_socket" not in cluster("http://a.test/v1")


def test_a_provider_that_is_not_enabled_leads_nowhere() -> None:
    made = cluster_of(Upstream(ID, "https://a.test/v1", is_enabled=False), **PLACES)
    assert addresses(made) == [("127.0.0.1", 1)]
    assert made["type"] == "STATIC"
    assert cluster_message(made).name == cluster_name(ID)


def test_every_provider_of_the_catalogue_is_an_upstream_once() -> None:
    off = MODELS[0].provider_id
    models = tuple(dataclasses.replace(model, provider_enabled=model.provider_id != off) for model in reversed(MODELS))
    upstreams = upstreams_of(Snapshot(1, models))
    assert {(each.provider_id, each.api_endpoint) for each in upstreams} == {
        (model.provider_id, model.api_endpoint) for model in models
    }
    assert [each.provider_id for each in upstreams] == sorted({model.provider_id for model in models})
    assert [each.provider_id for each in upstreams if not each.is_enabled] == [off]


async def test_the_upstreams_are_made_anew_only_of_another_snapshot() -> None:
    snapshot = Snapshot(1, MODELS)

    async def current() -> Snapshot:
        return snapshot

    upstreams = Upstreams(current)
    first = await upstreams()
    assert first == upstreams_of(snapshot)
    assert await upstreams() is first
    snapshot = Snapshot(2, MODELS[:1])
    assert [each.provider_id for each in await upstreams()] == [MODELS[0].provider_id]


# By a real Envoy


class Gateway:
    """An Envoy that sends each request to the cluster that its header x-cluster names."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, upstream: Upstream, path: str = "/chat") -> Any:
        return await ask(self.port, path, x_cluster=cluster_name(upstream.provider_id))


@asynccontextmanager
async def gateway(folder: Path, *upstreams: Upstream, dns_port: int | None = None) -> AsyncIterator[Gateway]:
    (port,) = free_ports(1)
    (folder / "gateway_attempt.lua").write_text(STUB)
    clusters = [cluster_of(each, ca_file=str(folder / "ca.pem"), lua_dir=str(folder)) for each in upstreams]
    names = [cluster_name(upstream.provider_id) for upstream in upstreams]
    made = bootstrap(folder, port, clusters=clusters, tried_in_turn=names, dns_port=dns_port)
    async with envoy(folder, made, port=port):
        yield Gateway(port)


def authority_in(folder: Path) -> Authority:
    authority = Authority(folder)
    (folder / "ca.pem").write_text(authority.pem)
    return authority


def new(endpoint: str, *, is_enabled: bool = True) -> Upstream:
    return Upstream(uuid.uuid4(), endpoint, is_enabled)


async def test_a_request_reaches_its_provider_and_lua_knows_which(tmp_path: Path) -> None:
    async with hostile_provider(answer("200 OK", body=b"here")) as provider:
        upstream = new(f"http://localhost:{provider.port}/open%20ai/v1/")
        async with gateway(tmp_path, upstream) as front:
            reply = await front.ask(upstream)
        assert (reply.status, reply.body, reply.headers["x-attempt"]) == (200, "here", "seen")
        assert provider.requests[0].startswith("GET /open%20ai/v1/chat HTTP/1.1\r\n")
        assert provider.headers["host"] == f"localhost:{provider.port}"
        assert provider.headers["x-provider"] == str(upstream.provider_id)
    assert "deprecated" not in (tmp_path / "envoy.log").read_text().lower()


async def test_tls_names_the_host_and_verifies_it(tmp_path: Path) -> None:
    authority, asked_for = authority_in(tmp_path), []

    def remember(_socket: object, name: str | None, _context: object) -> None:
        asked_for.append(name)

    right, wrong, address = authority.server("localhost"), authority.server("other.test"), authority.server("127.0.0.1")
    for context in (right, wrong, address):
        context.sni_callback = remember
    (tmp_path / "else").mkdir()
    stranger = Authority(tmp_path / "else").server("localhost")
    said = answer("200 OK", body=b"here")
    async with (
        hostile_provider(said, right) as good,
        hostile_provider(said, wrong) as bad,
        hostile_provider(said, address) as numbered,
        hostile_provider(said, stranger) as unknown,
    ):
        named = new(f"https://localhost:{good.port}/v1")
        by_address = new(f"https://127.0.0.1:{numbered.port}/v1")
        another = new(f"https://localhost:{bad.port}/v1")
        not_by_address = new(f"https://127.0.0.1:{good.port}/v1")
        untrusted = new(f"https://localhost:{unknown.port}/v1")
        async with gateway(tmp_path, named, by_address, another, not_by_address, untrusted) as front:
            assert (await front.ask(named)).body == "here"
            assert (await front.ask(by_address)).body == "here"
            assert asked_for == ["localhost", None]
            for upstream in (another, not_by_address, untrusted):
                reply = await front.ask(upstream)
                assert reply.status == 503
                assert "CERTIFICATE_VERIFY_FAILED" in reply.headers["x-tls"]
        assert (len(good.requests), len(bad.requests), len(unknown.requests)) == (1, 0, 0)


async def test_a_certificate_for_all_names_of_a_domain_is_one_for_each(tmp_path: Path) -> None:
    context = authority_in(tmp_path).server("*.localhost")
    async with hostile_provider(answer("200 OK", body=b"here"), context) as provider:
        upstream = new(f"https://api.localhost:{provider.port}/v1")
        async with gateway(tmp_path, upstream) as front:
            reply = await front.ask(upstream)
    assert (reply.status, reply.body) == (200, "here")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)],
    ids=["h2 and http/1.1", "http/1.1", "nothing"],
)
async def test_http_2_is_spoken_to_those_who_offer_it(tmp_path: Path, offered: list[str], chosen: str | None) -> None:
    context = authority_in(tmp_path).server("localhost")
    if offered:
        context.set_alpn_protocols(offered)
    agreed, began = [], []

    async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> None:
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        began.append(request)
        if agreed[-1] != "h2":
            await answer("200 OK", body=b"one")(_, writer, request)

    async with hostile_provider(look, context) as provider:
        upstream = new(f"https://localhost:{provider.port}/v1")
        async with gateway(tmp_path, upstream) as front:
            reply = await front.ask(upstream)
    assert agreed == [chosen]
    if chosen == "h2":
        assert began[0].encode() == H2_PREFACE
    else:
        assert (reply.status, reply.body) == (200, "one")


async def test_what_leads_nowhere_is_a_connection_that_fails_and_the_next_is_tried(tmp_path: Path) -> None:
    unknown, disabled = new("http://nobody.invalid/v1"), new("http://127.0.0.1:9/v1", is_enabled=False)
    async with hostile_provider(answer("200 OK", body=b"third")) as provider:
        upstream = new(provider.url)
        async with gateway(tmp_path, unknown, disabled, upstream) as front:
            for dead in (unknown, disabled):
                reply = await front.ask(dead)
                assert reply.status == 503
                assert "connection" in reply.body  # without a cluster, or a host in it, there is none
            reply = await ask(front.port, "/in-turn")
        assert (reply.status, reply.body) == (200, "third")
        assert provider.headers["x-provider"] == str(upstream.provider_id)


async def test_a_dns_server_that_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(5)
        unknown = new("http://a.test/v1")
        async with hostile_provider(answer("200 OK", body=b"well")) as provider:
            upstream = new(provider.url)
            async with gateway(tmp_path, unknown, upstream, dns_port=silent.getsockname()[1]) as front:
                assert (await front.ask(upstream)).body == "well"
                reply = await front.ask(unknown)
        assert (reply.status, "connection" in reply.body) == (503, True)
        assert b"test" in silent.recv(512)  # it was asked


async def test_an_answer_with_too_many_headers_is_refused(tmp_path: Path) -> None:
    many = "".join(f"x-{number}: 1\r\n" for number in range(150))
    async with hostile_provider(send(f"HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n".encode())) as provider:
        upstream = new(provider.url)
        async with gateway(tmp_path, upstream) as front:
            reply = await front.ask(upstream)
    assert reply.status == 502
