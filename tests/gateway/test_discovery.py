from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from gateway.discovery_server import LIMIT_S, Catalogue, new, served, until, usable
from gateway.envoy_process import SECRET
from llmrouter_server.gateway import discovery as discovery_module
from llmrouter_server.gateway.acceptance import PATIENCE_S
from llmrouter_server.gateway.clusters import cluster_name
from llmrouter_server.gateway.discovery import SERVICE, ClusterDiscovery
from llmrouter_server.gateway.envoy_api import Cluster, DiscoveryRequest, DiscoveryResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from llmrouter_server.gateway.clusters import Upstream
    from llmrouter_server.gateway.discovery import Places

PLACES = {"ca_file": "/etc/ssl/ca.pem", "lua_dir": "/opt/lua"}
MOST_AT_ONCE = 10
"""Clusters that are made while others wait."""


class Stream:
    """Envoy's end of a stream, for a test to play."""

    def __init__(self, call: Any, metadata: dict[str, str]) -> None:
        self.call, self.metadata = call, metadata

    async def begin(self, version: str = "") -> DiscoveryResponse:
        request = DiscoveryRequest(version_info=version)
        request.node.metadata.update(self.metadata)
        await self.call.write(request)
        return await self.next()

    async def next(self) -> DiscoveryResponse:
        async with asyncio.timeout(LIMIT_S):
            response = await self.call.read()
        assert response is not grpc.aio.EOF
        return response

    async def acknowledge(self, response: Any) -> None:
        await self.call.write(DiscoveryRequest(version_info=response.version_info, response_nonce=response.nonce))

    async def refuse(self, response: Any, said: str) -> None:
        request = DiscoveryRequest(response_nonce=response.nonce)
        request.error_detail.code, request.error_detail.message = 13, said
        await self.call.write(request)


@asynccontextmanager
async def stream_to(port: int, **metadata: str) -> AsyncIterator[Stream]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask_for = channel.stream_stream(
            f"/{SERVICE}/StreamClusters",
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )
        call = ask_for(metadata=(("x-llmrouter-gateway-secret", SECRET),))
        yield Stream(call, metadata or PLACES)
        call.cancel()


def held(response: Any) -> dict[str, Any]:
    """Return the clusters of an answer by name."""
    clusters = {}
    for each in response.resources:
        cluster = Cluster()
        assert each.Unpack(cluster)
        clusters[cluster.name] = cluster
    return clusters


# What is said on a stream


async def test_the_first_request_is_answered_with_all_clusters_and_a_change_with_all_again() -> None:
    catalogue = Catalogue(new(), new(on=False))
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        first = await stream.begin()
        assert set(held(first)) == {cluster_name(each.provider_id) for each in catalogue.upstreams}
        assert first.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
        await stream.acknowledge(first)
        catalogue.upstreams = (*catalogue.upstreams, new())
        discovery.changed()
        second = await stream.next()
        assert set(held(second)) == {cluster_name(each.provider_id) for each in catalogue.upstreams}
        assert second.version_info != first.version_info
        assert second.nonce != first.nonce


async def test_what_is_wrong_with_one_is_told_and_takes_none_of_the_others_from_envoy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = new(), new("https://user:secret@a.test/v1")
    catalogue = Catalogue(good, bad)
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        first = await stream.begin()
        assert set(held(first)) == {cluster_name(good.provider_id)}
        assert not usable(discovery, bad)
        await stream.acknowledge(first)
        mended = new(provider_id=bad.provider_id)
        catalogue.upstreams = (good, mended)
        discovery.changed()
        assert set(held(await stream.next())) == {cluster_name(each.provider_id) for each in (good, mended)}
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(record)["provider_ids"] == [str(bad.provider_id)]
    assert "secret" not in caplog.text


async def test_thousands_of_clusters_hold_nobody_up_and_after_a_change_only_what_is_new_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: Counter[UUID] = Counter()
    number, in_a_row, longest = 400, 0, 0

    def pack(upstream: Upstream, places: Places) -> bytes:
        nonlocal in_a_row, longest
        packed[upstream.provider_id] += 1
        in_a_row += 1
        longest = max(longest, in_a_row)
        return discovery_pack(upstream, places)

    async def take_turns() -> None:
        nonlocal in_a_row
        while True:
            await asyncio.sleep(0)
            in_a_row = 0

    discovery_pack = discovery_module._pack
    monkeypatch.setattr(discovery_module, "_pack", pack)
    catalogue = Catalogue(*(new() for _ in range(number)))
    async with served(catalogue) as (discovery, port), stream_to(port) as stream, stream_to(port) as other:
        others = asyncio.create_task(take_turns())
        first = await stream.begin()
        others.cancel()
        assert longest <= MOST_AT_ONCE
        await other.acknowledge(await other.begin())
        await stream.acknowledge(first)
        added = new()
        catalogue.upstreams = (*catalogue.upstreams[1:], added)
        discovery.changed()
        assert held(await stream.next()).keys() == {cluster_name(each.provider_id) for each in catalogue.upstreams}
    assert len(packed) == number + 1
    assert set(packed.values()) == {1}


async def test_nothing_is_sent_when_nothing_differs() -> None:
    catalogue = Catalogue(new(), new())
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        catalogue.upstreams = tuple(reversed(catalogue.upstreams))
        before = catalogue.readings
        discovery.changed()
        await until(lambda: catalogue.readings > before)
        catalogue.upstreams = (*catalogue.upstreams, new())
        discovery.changed()
        assert len(held(await stream.next())) == len(catalogue.upstreams)  # nothing came before this


async def test_a_change_that_nobody_told_is_found() -> None:
    catalogue = Catalogue(new())
    async with served(catalogue) as (_, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        catalogue.upstreams = (new(),)
        assert set(held(await stream.next())) == {cluster_name(catalogue.upstreams[0].provider_id)}


async def test_a_burst_of_changes_is_read_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_module, "LOOK_AGAIN_S", LIMIT_S)
    catalogue = Catalogue(new())
    async with served(catalogue, settle_s=1.0) as (discovery, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        before = catalogue.readings
        for _ in range(50):
            catalogue.upstreams = (*catalogue.upstreams, new())
            discovery.changed()
            await asyncio.sleep(0)
        assert len(held(await stream.next())) == 51
        assert catalogue.readings == before + 1


async def test_the_next_answer_waits_until_envoy_has_said_what_it_thinks_of_the_last() -> None:
    catalogue = Catalogue(new())
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        first = await stream.begin()
        await stream.call.write(DiscoveryRequest(response_nonce="of another stream"))
        for _ in range(2):
            before = catalogue.readings
            catalogue.upstreams = (new(),)
            discovery.changed()
            await until(lambda before=before: catalogue.readings > before)
        await stream.acknowledge(first)
        assert set(held(await stream.next())) == {cluster_name(catalogue.upstreams[0].provider_id)}


async def test_the_version_is_the_same_on_every_replica_and_for_each_envoy_with_the_same_places() -> None:
    one, other = new(), new("http://b.test")
    async with (
        served(Catalogue(one, other)) as (_, here),
        served(Catalogue(other, one)) as (_, there),
        stream_to(here) as first,
        stream_to(there) as second,
        stream_to(there, ca_file="/etc/other.pem", lua_dir="/opt/lua") as third,
    ):
        versions = [(await stream.begin()).version_info for stream in (first, second, third)]
    assert versions[0] == versions[1] != versions[2]


async def test_a_new_stream_gets_everything_whatever_its_envoy_had() -> None:
    catalogue = Catalogue(new())
    async with served(catalogue) as (_, port):
        async with stream_to(port) as stream:
            first = await stream.begin()
        async with stream_to(port) as stream:
            again = await stream.begin(first.version_info)
    assert (again.version_info, held(again)) == (first.version_info, held(first))


@pytest.mark.parametrize("metadata", [{"ca_file": "/ca.pem"}, {"lua_dir": "/lua"}, {"ca_file": "", "lua_dir": "/lua"}])
async def test_an_envoy_that_does_not_say_where_its_files_are_is_refused(metadata: dict[str, str]) -> None:
    async with served(Catalogue(new())) as (_, port), stream_to(port, **metadata) as stream:
        request = DiscoveryRequest()
        request.node.metadata.update(metadata)
        await stream.call.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.call.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ca_file and lua_dir" in (raised.value.details() or "")


async def test_when_the_server_drains_every_stream_ends_well() -> None:
    async with served(Catalogue(new())) as (discovery, port), stream_to(port) as stream, stream_to(port) as idle:
        await stream.begin()
        await discovery.stop()
        assert await stream.call.read() is grpc.aio.EOF
        assert await stream.call.code() is grpc.StatusCode.OK
        request = DiscoveryRequest()
        request.node.metadata.update(PLACES)
        await idle.call.write(request)  # one that begins only now
        assert await idle.call.read() is grpc.aio.EOF
        assert await idle.call.code() is grpc.StatusCode.OK


async def test_while_the_catalogue_cannot_be_read_streams_wait_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalogue = Catalogue(new())
    catalogue.is_away = True
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        beginning = asyncio.create_task(stream.begin())
        for _ in range(3):
            before = catalogue.readings
            discovery.changed()
            await until(lambda before=before: catalogue.readings > before)
        assert not beginning.done()
        catalogue.is_away = False
        discovery.changed()
        assert len(held(await beginning)) == 1
    assert [record.message for record in caplog.records if "cannot be read" in record.message] == [
        "the providers cannot be read; Envoy keeps its clusters"
    ]


# What may be named in a plan


async def test_a_new_provider_may_be_named_when_envoy_has_it() -> None:
    old, fresh = new(), new()
    catalogue = Catalogue(old)
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        catalogue.upstreams = (old, fresh)
        assert not usable(discovery, fresh)
        discovery.changed()
        response = await stream.next()
        assert (usable(discovery, old), usable(discovery, fresh)) == (True, False)
        await stream.acknowledge(response)
        await until(lambda: usable(discovery, fresh))


async def test_other_words_for_the_same_url_need_no_other_answer() -> None:
    before = new("https://a.test/v1")
    after = new("https://a.test/v1/", before.provider_id)
    catalogue = Catalogue(before)
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        catalogue.upstreams = (after,)
        discovery.changed()
        await until(lambda: usable(discovery, after))
        assert not usable(discovery, before)


async def test_a_provider_that_is_disabled_or_gone_may_not_be_named() -> None:
    kept, disabled, gone = new(), new(), new()
    catalogue = Catalogue(kept, disabled, gone)
    async with served(catalogue) as (discovery, _):
        assert all(usable(discovery, each) for each in (kept, disabled, gone))
        catalogue.upstreams = (kept, new(disabled.api_endpoint, disabled.provider_id, on=False))
        discovery.changed()
        await until(lambda: not usable(discovery, gone))
        assert (usable(discovery, kept), usable(discovery, disabled)) == (True, False)


async def test_before_the_first_reading_everything_may_be_named() -> None:
    discovery = ClusterDiscovery(Catalogue().read)
    assert usable(discovery, new())
    await discovery.start()
    assert not usable(discovery, new())
    await discovery.stop()


async def test_what_envoy_refuses_may_not_be_named_and_is_told_once_and_not_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = new(), new()
    catalogue = Catalogue()
    async with served(catalogue) as (discovery, port), stream_to(port) as stream, stream_to(port) as other:
        for each in (stream, other):
            await each.acknowledge(await each.begin())
        catalogue.upstreams = (good, bad)
        discovery.changed()
        said = f"Error adding/updating cluster(s) {cluster_name(bad.provider_id)}: no such file"
        for each in (stream, other):
            await each.refuse(await each.next(), said)
        await until(lambda: usable(discovery, good))
        catalogue.now += PATIENCE_S
        assert not usable(discovery, bad)
        catalogue.upstreams = (good, bad, new())
        discovery.changed()
        assert len(held(await stream.next())) == len(catalogue.upstreams)  # nothing came before this
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(record)["error"] == said


@pytest.mark.parametrize("said", ["Proto constraint validation failed", "provider-{}: bad ...(truncated)"])
async def test_when_envoy_does_not_say_what_it_took_it_took_nothing_until_time_tells(said: str) -> None:
    good, bad, probe = new(), new(), new()
    catalogue = Catalogue()
    async with served(catalogue) as (discovery, port), stream_to(port) as stream:
        await stream.acknowledge(await stream.begin())
        catalogue.upstreams = (good, bad)
        discovery.changed()
        await stream.refuse(await stream.next(), said.format(bad.provider_id))
        catalogue.upstreams = (good, bad, probe)
        discovery.changed()
        await stream.next()  # so the refusal has been heard
        assert not usable(discovery, good)
        catalogue.now += PATIENCE_S
        assert usable(discovery, good)
        assert usable(discovery, bad) is (str(bad.provider_id) not in said.format(bad.provider_id))
