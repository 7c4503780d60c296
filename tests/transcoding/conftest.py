from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

import http_json
from conftest import make_open_folder
from contract import Contract
from golden import Player
from llmrouter import Client
from llmrouter_server.runtime.local_stack import LocalStack, Ports
from transcoding.edge_harness import ORIGIN, Edge, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


@pytest.fixture(scope="session")
def recording_client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.grpc_address, token=stack.identity.mint("service")) as client:
        yield client


@pytest.fixture(scope="session")
async def other_stack() -> AsyncIterator[LocalStack]:
    """One whose catalogue goldens may change: those of the shared stack count its models."""
    folder = make_open_folder()
    async with LocalStack(folder / "stack", ports=Ports(http=0, grpc=0, metrics=0), durable=False) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
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
async def own_edge(issuer: Issuer, tmp_path: Any) -> AsyncIterator[Callable[..., Awaitable[Edge]]]:
    """Start one of its own, with low limits unless others are given, whose server may be stopped."""
    started: list[Edge] = []

    async def start(**parameters: Any) -> Edge:
        limits = {"user_requests_per_s": 5, "global_requests_per_s": 20}
        started.append(await Edge.start(tmp_path, issuer, **limits | parameters))
        return started[-1]

    yield start
    for edge in started:
        await edge.stop()


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract()


@pytest.fixture
def player(stack: LocalStack, recording_client: Client, contract: Contract) -> Player:
    return player_of(stack, recording_client, contract)


@pytest.fixture
def other_player(other_stack: LocalStack, contract: Contract) -> Iterator[Player]:
    with Client(other_stack.grpc_address, token=other_stack.identity.mint("service")) as client:
        yield player_of(other_stack, client, contract)


def player_of(stack: LocalStack, recording_client: Client, contract: Contract) -> Player:
    admin = stack.identity.mint("admin")
    providers = http_json.call("GET", f"{stack.base_url}/providers?page_size=500", token=admin).json["providers"]
    models = http_json.call("GET", f"{stack.base_url}/models", token=admin).json["models"]
    return Player(
        url=stack.base_url,
        token=stack.identity.mint,
        record=recording_client.usage.RecordUsage,
        providers={provider["name"]: provider["provider_id"] for provider in providers},
        models={model["model_name"]: model["model_id"] for model in models},
        contract=contract,
    )
