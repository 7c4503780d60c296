"""A server of the clients' tests, and worlds in it: a user with keys for three providers that nobody else can use."""

from __future__ import annotations

import shutil
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from conftest import make_open_folder
from gateway.provider_server import Provider, provider
from llmrouter import ECO, AsyncClient, RouteRequest
from llmrouter_server.runtime.dev_identity import DevIdentity
from llmrouter_server.runtime.local_ports import free_ports
from server_process import server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from llmrouter_server.runtime.dev_identity import RoleName

LETTERS = "ABC"
"""The providers, in the order in which a decision names them."""
CONTEXT = 5_000_000
"""Larger than any model's of the catalogue: who asks for it gets a world's models."""


@dataclass(frozen=True, slots=True)
class ClientWorld:
    """Providers that answer as they are told, each with one model, and the only user who has keys for them."""

    providers: Mapping[str, Provider]
    keys: Mapping[str, str]
    user_id: str
    user_token: str
    service_token: str

    @property
    def request(self) -> RouteRequest:
        """What a service asks for this user."""
        return RouteRequest(power_level=ECO, min_context_tokens=CONTEXT, user_id=self.user_id)


class OwnServer:
    """llmrouter with a database of its own, without Envoy."""

    def __init__(self, address: str, identity: DevIdentity, cleanup: AsyncExitStack) -> None:
        self.address, self.identity = address, identity
        self._cleanup = cleanup

    def client(self, role: RoleName, user_id: uuid.UUID | None = None, **options: Any) -> AsyncClient:
        return AsyncClient(self.address, token=self.identity.mint(role, user_id), **options)

    async def new_world(self) -> ClientWorld:
        mark, user_id = uuid.uuid4().hex[:12], uuid.uuid4()
        providers = {letter: await self._cleanup.enter_async_context(provider(letter)) for letter in LETTERS}
        keys = {letter: f"sk-made-up-{letter.lower()}-{mark}" for letter in LETTERS}
        async with self.client("admin") as admin, self.client("user", user_id) as user:
            for letter, served in providers.items():
                made = await admin.providers.create_provider(
                    name=f"{letter} of {mark}", provider_type="openai", api_endpoint=served.url
                )
                await admin.models.create_model(
                    provider_id=made.provider_id,
                    model_name=f"model-{letter.lower()}",
                    power_level=ECO,
                    input_cost_per_1m=3.0,
                    output_cost_per_1m=15.0,
                    quality_score=9.0 - LETTERS.index(letter),
                    max_context_tokens=CONTEXT,
                    capabilities=["chat"],
                )
                await user.byok.store_key(provider_id=made.provider_id, api_key=keys[letter])
        return ClientWorld(
            providers, keys, str(user_id), self.identity.mint("user", user_id), self.identity.mint("service")
        )


@asynccontextmanager
async def own_server(url: str) -> AsyncIterator[OwnServer]:
    """Serve this database until the end of the block."""
    folder = make_open_folder()
    identity, [port] = DevIdentity.load_or_create(folder / "identity"), free_ports(1)
    try:
        async with AsyncExitStack() as cleanup:
            key = Fernet.generate_key().decode()
            address = await cleanup.enter_async_context(
                server(folder, url, identity, port, key, ALLOW_PRIVATE_ENDPOINTS="true")
            )
            yield OwnServer(address, identity, cleanup)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
