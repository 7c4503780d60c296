"""Tells each Envoy its clusters, again whenever the catalogue changes, and knows which of them Envoy has taken.

Envoy's protocol for this is "state of the world" CDS: each answer holds all clusters, Envoy acknowledges it (ACK) or
says what it refuses (NACK), and keeps whatever else it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from llmrouter_server import errors
from llmrouter_server.gateway.acceptance import SPREAD_S, Acceptance, Pair
from llmrouter_server.gateway.clusters import Upstream, cluster_message, cluster_name, cluster_of, endpoint_of
from llmrouter_server.gateway.envoy_api import Cluster, DiscoveryRequest, DiscoveryResponse
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from llmrouter_server.runtime.interceptor import Context

log = logging.getLogger(__name__)

SERVICE = "envoy.service.cluster.v3.ClusterDiscoveryService"
TYPE_URL = f"type.googleapis.com/{Cluster.DESCRIPTOR.full_name}"
SETTLE_S = 0.05
"""How long a change waits for others, so that many at once are told as one."""
LOOK_AGAIN_S = 1.0
"""A change that was not told is found by then; also how long a failed reading waits for the next."""
MAX_ERROR = 2000
"""Characters of Envoy's words that are logged."""
REMEMBERED_VERSIONS = 64
AT_ONCE = 4
"""Clusters that are made before others have their turn: each takes most of a millisecond."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where files are for an Envoy; it says so in its node's metadata."""

    ca_file: str
    lua_dir: str


@dataclass(frozen=True, slots=True)
class Resources:
    """All clusters for Envoys with the same places."""

    version: str
    """The same for the same clusters, on every replica."""
    upstreams: tuple[Upstream, ...]
    pairs: Mapping[str, Pair]
    """By the cluster's name, of those that may be named in a plan."""
    packed: Mapping[Upstream, bytes]
    """Envoy's messages, serialised."""


@dataclass(slots=True)
class _Sent:
    """The last answer on a stream."""

    nonce: str
    resources: Resources
    is_answered: bool = False
    accepted: tuple[str, ...] = ()
    """Names of clusters."""


class ClusterDiscovery:
    """Reads the catalogue in one task, whoever asks; every stream waits for what that finds."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Sequence[Upstream]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        settle_s: float = SETTLE_S,
        spread_s: float = SPREAD_S,
    ) -> None:
        """`read` returns the providers as they are now; it may raise errors.DomainError.

        What it returns again, the same object, is known not to have changed.
        """
        self._read, self._settle_s = read, settle_s
        self._acceptance = Acceptance(clock, spread_s=spread_s)
        self._found: Sequence[Upstream] | None = None
        self._upstreams: tuple[Upstream, ...] | None = None
        """Those whose endpoint is a usable URL, in the order of their ids."""
        self._unusable: frozenset[Upstream] = frozenset()
        self._compiled: dict[Places, Resources] = {}
        self._compiling = asyncio.Lock()
        self._changed, self._news = asyncio.Event(), asyncio.Event()
        self._is_draining = self._is_blind = False
        self._task: asyncio.Task[None] | None = None
        self._refused: deque[str] = deque(maxlen=REMEMBERED_VERSIONS)

    def changed(self, _number: str = "") -> None:
        """Note that the catalogue has changed, or may have."""
        self._changed.set()

    def is_usable(self, provider_id: UUID, api_endpoint: str) -> bool:
        """Tell whether a plan may name this provider at this endpoint: an Envoy has it, or must have it by now.

        Before the first reading, everything may be named, as for what the first reading finds.
        """
        return self._upstreams is None or self._acceptance.is_usable((provider_id, api_endpoint))

    async def start(self) -> None:
        """Read the catalogue, or try to, and begin to follow it."""
        await self._look()
        self._task = asyncio.create_task(self._follow(), name="cluster discovery")

    async def stop(self) -> None:
        """End all streams and stop following. Envoy keeps its clusters, and asks elsewhere."""
        self._is_draining = True
        self._tell()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what answers Envoy's requests on a gRPC server."""
        method = grpc.stream_stream_rpc_method_handler(
            self._stream_clusters,
            request_deserializer=DiscoveryRequest.FromString,
            response_serializer=DiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamClusters": method})

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed.wait()
                    await asyncio.sleep(self._settle_s)
            self._changed.clear()  # before reading: what changes from here on may not be in what is read
            await self._look()

    async def _look(self) -> None:
        try:
            found = await self._read()
        except Exception as error:
            if not self._is_blind:  # once, and not every second
                told = error if not isinstance(error, errors.DomainError) else None
                log.warning("the providers cannot be read; Envoy keeps its clusters", exc_info=told)
            self._is_blind = True
            return
        self._is_blind = False
        if found is self._found:
            return
        unusable = await self._find_unusable(found)
        usable = (upstream for upstream in found if upstream not in unusable)
        upstreams = tuple(sorted(usable, key=lambda upstream: upstream.provider_id.int))
        self._found, self._unusable = found, unusable
        if upstreams != self._upstreams:
            self._upstreams = upstreams
            self._acceptance.now_there(_pair(upstream) for upstream in upstreams if upstream.is_enabled)
            self._tell()

    async def _find_unusable(self, found: Sequence[Upstream]) -> frozenset[Upstream]:
        """Return those whose endpoint is no usable URL: what is wrong with one must not take the others from Envoy."""
        known = self._unusable & frozenset(found)
        fresh = frozenset(found) - frozenset(self._upstreams or ()) - known
        unusable = [upstream async for upstream in in_turns(fresh, AT_ONCE) if not _has_usable_endpoint(upstream)]
        if unusable:
            ids = sorted(str(upstream.provider_id) for upstream in unusable)
            log.error("providers whose endpoint is no usable URL get no cluster", extra={"provider_ids": ids})
        return known.union(unusable)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _resources(self, places: Places) -> Resources | None:
        """Return all clusters; None before the first reading. They may be of the moment before this one."""
        async with self._compiling:  # Envoys with the same places share what is made for the first
            last, upstreams = self._compiled.get(places), self._upstreams
            if upstreams is None or (last is not None and last.upstreams is upstreams):
                return last
            known = last.packed if last is not None else {}
            fresh = [upstream for upstream in upstreams if upstream not in known]
            made = {upstream: _pack(upstream, places) async for upstream in in_turns(fresh, AT_ONCE)}
            packed = {upstream: made.get(upstream) or known[upstream] for upstream in upstreams}
            self._compiled[places] = Resources(
                version=hashlib.sha256(b"".join(packed.values())).hexdigest()[:16],
                upstreams=upstreams,
                pairs={cluster_name(each.provider_id): _pair(each) for each in upstreams if each.is_enabled},
                packed=packed,
            )
            return self._compiled[places]

    async def _stream_clusters(self, _: object, context: Context) -> None:
        """Answer the first request, and then again whenever there is something else to say.

        One answer at a time: the next is sent when Envoy has said what it thinks of the last, so that what it says last
        is about what it has.
        """
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        places = _places(first)
        if places is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "node.metadata must hold the texts ca_file and lua_dir"
            )
        sent: _Sent | None = None
        requested = asyncio.ensure_future(context.read())
        try:
            while not self._is_draining:
                news = self._news  # before looking: what comes later wakes us up
                sent = await self._send_news(places, sent, context)
                told = asyncio.ensure_future(news.wait())
                try:
                    await asyncio.wait({requested, told}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    told.cancel()
                if requested.done():
                    if requested.result() is grpc.aio.EOF:
                        return
                    self._heard(requested.result(), sent)
                    requested = asyncio.ensure_future(context.read())
        finally:
            requested.cancel()
            await asyncio.gather(requested, return_exceptions=True)

    async def _send_news(self, places: Places, sent: _Sent | None, context: Context) -> _Sent | None:
        """Send the clusters if they are others than those sent last, and Envoy has answered to those."""
        if sent is not None and not sent.is_answered:
            return sent
        resources = await self._resources(places)
        if resources is None:
            return sent
        if sent is not None and sent.resources.version == resources.version:
            # What has gone and come back meanwhile, it has had all the time; other words for the same URL, as well.
            self._accept(sent.accepted, resources)
            return sent
        sent = _Sent(nonce=str(int(sent.nonce) + 1) if sent else "1", resources=resources)
        response = DiscoveryResponse(version_info=resources.version, type_url=TYPE_URL, nonce=sent.nonce)
        for packed in resources.packed.values():
            response.resources.add(type_url=TYPE_URL, value=packed)
        await context.write(response)
        return sent

    def _heard(self, request: Any, sent: _Sent | None) -> None:  # noqa: ANN401 - its class is made at run time
        if sent is None or sent.is_answered or request.response_nonce != sent.nonce:
            return
        sent.is_answered = True
        version, pairs = sent.resources.version, sent.resources.pairs
        if not request.HasField("error_detail"):
            sent.accepted = tuple(pairs)
            self._accept(sent.accepted, sent.resources)
            return
        said = str(request.error_detail.message)
        sent.accepted, refused = _judged(said, pairs)
        self._accept(sent.accepted, sent.resources)
        self._acceptance.refuse(pairs[name] for name in refused)
        if version not in self._refused:
            self._refused.append(version)
            log.error("Envoy refuses clusters", extra={"version": version, "error": said[:MAX_ERROR]})

    def _accept(self, names: Iterable[str], resources: Resources) -> None:
        self._acceptance.accept(resources.pairs[name] for name in names)


def _has_usable_endpoint(upstream: Upstream) -> bool:
    try:
        endpoint_of(upstream.api_endpoint)
    except ValueError:
        return False
    return True


def _pack(upstream: Upstream, places: Places) -> bytes:
    cluster = cluster_of(upstream, ca_file=places.ca_file, lua_dir=places.lua_dir)
    packed: bytes = cluster_message(cluster).SerializeToString(deterministic=True)
    return packed


def _places(request: Any) -> Places | None:  # noqa: ANN401 - its class is made at run time
    """Read the node's metadata; None when something is missing."""
    fields = request.node.metadata.fields
    texts = [fields[name].string_value if name in fields else "" for name in ("ca_file", "lua_dir")]
    return Places(*texts) if all(texts) else None


def _judged(said: str, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the clusters that Envoy took and that it refused, going by its words.

    It takes each cluster by itself, and then names those that it could not. When it names none, it took nothing.
    """
    refused = tuple(name for name in names if name in said)
    # It cuts long words short, after which nothing can be said of those that it did not name.
    is_whole = bool(refused) and "truncated" not in said
    return tuple(name for name in names if is_whole and name not in refused), refused


def _pair(upstream: Upstream) -> Pair:
    return upstream.provider_id, upstream.api_endpoint
