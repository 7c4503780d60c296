from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gateway.discovery_server import LIMIT_S, Catalogue, new, served, until, usable
from gateway.envoy_process import STUB, Reply, ask, bootstrap, connection, envoy
from hostile_provider import Authority, answer, hostile_provider
from llmrouter_server.gateway.clusters import Upstream, cluster_name
from llmrouter_server.runtime.local_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import pytest

    from llmrouter_server.gateway.discovery import ClusterDiscovery


class Gateway:
    """An Envoy that gets its clusters from a discovery."""

    def __init__(self, catalogue: Catalogue, discovery: ClusterDiscovery, port: int) -> None:
        self.catalogue, self.discovery, self.port = catalogue, discovery, port

    async def change(self, *upstreams: Upstream, awaited: Sequence[Upstream] | None = None) -> None:
        """Make the catalogue these and wait until Envoy has them. The clock stands, so that time alone does nothing."""
        self.catalogue.upstreams = upstreams
        self.discovery.changed()
        waits_for = [each for each in upstreams if each.is_enabled] if awaited is None else awaited
        await until(lambda: all(usable(self.discovery, each) for each in waits_for))

    async def ask(self, upstream: Upstream) -> Reply:
        return await ask(self.port, "/chat", x_cluster=cluster_name(upstream.provider_id))


@asynccontextmanager
async def gateway(folder: Path, *upstreams: Upstream) -> AsyncIterator[Gateway]:
    discovery_port, port = free_ports(2)
    (folder / "gateway_attempt.lua").write_text(STUB)
    metadata = {"ca_file": str(folder / "ca.pem"), "lua_dir": str(folder)}
    catalogue = Catalogue(*upstreams)
    started = bootstrap(folder, port, discovery_port=discovery_port, metadata=metadata)
    async with served(catalogue, discovery_port) as (discovery, _), envoy(folder, started, port=port):
        yield Gateway(catalogue, discovery, port)


async def test_envoy_follows_the_catalogue(tmp_path: Path) -> None:
    async with (
        hostile_provider(answer("200 OK", body=b"one")) as one,
        hostile_provider(answer("200 OK", body=b"two")) as two,
    ):
        first = new(one.url)
        async with gateway(tmp_path, first) as front:
            assert (await front.ask(first)).body == "one"  # there from the start: Envoy listens when it has them
            added = new(two.url)
            assert (await front.ask(added)).body == ""
            await front.change(first, added)
            assert [(await front.ask(each)).body for each in (first, added)] == ["one", "two"]
            moved = new(two.url, first.provider_id)
            await front.change(moved, added)
            assert (await front.ask(moved)).body == "two"
            off = new(two.url, first.provider_id, on=False)
            await front.change(off, added)
            async with asyncio.timeout(LIMIT_S):
                while (reply := await front.ask(off)).status != 503:
                    await asyncio.sleep(0.01)
            assert "connection" in reply.body
            assert (await front.ask(added)).body == "two"


async def test_a_stream_under_way_goes_on_when_its_provider_moves_and_is_disabled(tmp_path: Path) -> None:
    go_on, head = asyncio.Event(), b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _request: str) -> None:
        writer.write(head + b"data: begun\n\n")
        await writer.drain()
        await go_on.wait()
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async with hostile_provider(slow) as old, hostile_provider(answer("200 OK", body=b"moved")) as other:
        first = new(old.url)
        moved, off = new(other.url, first.provider_id), new(other.url, first.provider_id, on=False)
        async with (
            gateway(tmp_path, first) as front,
            connection(front.port, "/", x_cluster=cluster_name(first.provider_id)) as (reader, _),
            asyncio.timeout(LIMIT_S),
        ):
            await reader.readuntil(b"data: begun\n\n")
            await front.change(moved)
            assert (await front.ask(moved)).body == "moved"
            await front.change(off)
            while (await front.ask(off)).status != 503:
                await asyncio.sleep(0.01)
            await front.change()
            while "connection" in (await front.ask(off)).body:
                await asyncio.sleep(0.01)
            go_on.set()
            assert b"data: [DONE]" in await reader.read()


async def test_a_cluster_that_envoy_refuses_takes_none_of_the_others_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = Authority(tmp_path).server("localhost")  # whose own certificate Envoy looks for in vain
    async with (
        hostile_provider(answer("200 OK", body=b"one")) as one,
        hostile_provider(answer("200 OK", body=b"two")) as two,
        hostile_provider(answer("200 OK", body=b"safe"), context) as safe,
    ):
        first, second, bad = new(one.url), new(two.url), new(f"https://localhost:{safe.port}/v1")
        async with gateway(tmp_path, first) as front:
            await front.change(first, second, bad, awaited=[first, second])
            assert [(await front.ask(each)).body for each in (first, second)] == ["one", "two"]
            assert not usable(front.discovery, bad)
            gone = new(one.url)
            await front.change(second, gone, bad, awaited=[second, gone])
            assert (await front.ask(gone)).body == "one"
    refusals = [record for record in caplog.records if record.message == "Envoy refuses clusters"]
    assert len(refusals) == 2  # one for each version
    assert all(cluster_name(bad.provider_id) in vars(record)["error"] for record in refusals)


async def test_envoy_keeps_its_clusters_while_the_server_is_away_and_follows_the_next(tmp_path: Path) -> None:
    discovery_port, port = free_ports(2)
    (tmp_path / "gateway_attempt.lua").write_text(STUB)
    metadata = {"ca_file": str(tmp_path / "ca.pem"), "lua_dir": str(tmp_path)}
    started = bootstrap(tmp_path, port, discovery_port=discovery_port, metadata=metadata)
    async with hostile_provider(answer("200 OK", body=b"one")) as one:
        first, second = new(one.url), new(one.url)
        before, after = Catalogue(first), Catalogue(first)
        async with AsyncExitStack() as stack:
            async with served(before, discovery_port):
                await stack.enter_async_context(envoy(tmp_path, started, port=port))
            cluster = cluster_name(first.provider_id)
            assert (await ask(port, "/chat", x_cluster=cluster)).body == "one"
            async with served(after, discovery_port) as (discovery, _):
                front = Gateway(after, discovery, port)
                await front.change(first, second)
                assert (await front.ask(second)).body == "one"


async def test_an_envoy_that_is_there_first_gets_its_clusters_when_the_server_comes(tmp_path: Path) -> None:
    discovery_port, port = free_ports(2)
    (tmp_path / "gateway_attempt.lua").write_text(STUB)
    metadata = {"ca_file": str(tmp_path / "ca.pem"), "lua_dir": str(tmp_path)}
    started = bootstrap(tmp_path, port, discovery_port=discovery_port, first_clusters_s=2, metadata=metadata)
    async with hostile_provider(answer("200 OK", body=b"one")) as one, envoy(tmp_path, started, port=port):
        upstream = new(one.url)
        cluster = cluster_name(upstream.provider_id)
        assert (await ask(port, "/chat", x_cluster=cluster)).body == ""
        async with served(Catalogue(upstream), discovery_port), asyncio.timeout(LIMIT_S):
            while (await ask(port, "/chat", x_cluster=cluster)).body != "one":
                await asyncio.sleep(0.01)
