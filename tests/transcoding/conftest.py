from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import http_json
from conftest import make_open_folder
from golden import Player
from llmrouter import Client
from llmrouter_server.runtime.local_stack import LocalStack, Ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


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


@pytest.fixture
def player(stack: LocalStack, recording_client: Client) -> Player:
    return player_of(stack, recording_client)


@pytest.fixture
def other_player(other_stack: LocalStack) -> Iterator[Player]:
    with Client(other_stack.grpc_address, token=other_stack.identity.mint("service")) as client:
        yield player_of(other_stack, client)


def player_of(stack: LocalStack, recording_client: Client) -> Player:
    admin = stack.identity.mint("admin")
    providers = http_json.call("GET", f"{stack.base_url}/providers?page_size=500", token=admin).json["providers"]
    models = http_json.call("GET", f"{stack.base_url}/models", token=admin).json["models"]
    return Player(
        url=stack.base_url,
        token=stack.identity.mint,
        record=recording_client.usage.RecordUsage,
        providers={provider["name"]: provider["provider_id"] for provider in providers},
        models={model["model_name"]: model["model_id"] for model in models},
    )
