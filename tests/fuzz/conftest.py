from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc
import pytest

import http_json
from conftest import make_open_folder
from fuzz.laws import check_logs
from llmrouter import Client
from llmrouter.v2.byok_service_pb2 import StoreKeyRequest
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.routing_service_pb2 import RouteRequest
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest
from llmrouter_server.runtime.local_stack import LocalStack, Ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmrouter_server.runtime.dev_identity import RoleName

CASES = int(os.environ.get("FUZZ_CASES", "1200"))
"""About how many cases are tried in all; `make fuzz` sets more."""
IS_BOUNDED = "FUZZ_CASES" not in os.environ
"""As a part of all tests: few cases, and the same ones every time."""
CANARY = "sk-fuzz-canary-5d41402abc4b2a76"
OUTCOMES: Counter[str] = Counter()


@dataclass
class Target:
    """A stack of the fuzzer's own, with things of one user in it, whose names it knows."""

    stack: LocalStack
    channel: grpc.Channel
    owner: uuid.UUID
    ids: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=lambda: OUTCOMES)

    def token(self, role: RoleName, user: uuid.UUID | None = None) -> str:
        return self.stack.identity.mint(role, user or uuid.uuid4())


@pytest.fixture(scope="session")
async def fuzzed_stack() -> AsyncIterator[LocalStack]:
    folder = make_open_folder()
    async with LocalStack(
        folder / "stack",
        ports=Ports(http=0, grpc=0, metrics=0),
        durable=False,
        server_env={"ALLOW_PRIVATE_ENDPOINTS": "false"},
        adjust_edge=lambda edge: replace(edge, user_requests_per_s=1_000_000, global_requests_per_s=1_000_000),
    ) as stack:
        yield stack
    check_logs(stack)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def target(fuzzed_stack: LocalStack) -> Iterator[Target]:
    owner = uuid.uuid4()
    stack, ids = fuzzed_stack, [str(owner)]
    with Client(stack.grpc_address, token=stack.identity.mint("user", owner)) as client:
        models = client.models.ListModels(ListModelsRequest(page_size=5)).models
        ids += [model.model_id for model in models] + [model.provider_id for model in models[:2]]
        ids.append(client.byok.StoreKey(StoreKeyRequest(provider_id=models[0].provider_id, api_key=CANARY)).key_id)
        ids.append(client.routing.Route(RouteRequest()).decision_id)
    with Client(stack.grpc_address, token=stack.identity.mint("service")) as service:
        service.usage.RecordUsage(
            RecordUsageRequest(user_id=str(owner), request_id="fuzzed", model_id=models[0].model_id, input_tokens=5)
        )
    with grpc.insecure_channel(stack.grpc_address) as channel:
        yield Target(stack, channel, owner, ids)
    alive = http_json.call("POST", f"{stack.base_url}/route", token=stack.identity.mint("user"), body={})
    assert alive.status in (200, 404), alive  # 404: the fuzzer may have disabled every provider


@pytest.fixture(scope="session")
def outcomes() -> Counter[str]:
    """What is told at the end of the run."""
    return OUTCOMES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if OUTCOMES:
        terminalreporter.write_sep("=", f"fuzzed: {sum(OUTCOMES.values())} cases")
        for outcome, count in sorted(OUTCOMES.items()):
            terminalreporter.write_line(f"{count:7} {outcome}")
