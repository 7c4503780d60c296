from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import http_json
from golden import Player
from llmrouter import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmrouter_server.runtime.local_stack import LocalStack


@pytest.fixture(scope="session")
def recording_client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.grpc_address, token=stack.identity.mint("service")) as client:
        yield client


@pytest.fixture
def player(stack: LocalStack, recording_client: Client) -> Player:
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
