"""Every line of the manual test plan the product was asked for with, through JSON, `buf curl` and grpcurl."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

import http_json
from llmrouter import Client
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest

if TYPE_CHECKING:
    from conftest import User
    from llmrouter_server.runtime.local_stack import LocalStack

Ask = Callable[..., dict[str, Any]]

# What each call of the plan is: RPC, HTTP method, path. `{}` in a path takes the id that is a field of the request.
CALLS = {
    "ProviderService/ListProviders": ("GET", "/providers", None),
    "ProviderService/CreateProvider": ("POST", "/providers", None),
    "ProviderService/UpdateProvider": ("PUT", "/providers/{}", "provider_id"),
    "ProviderService/DisableProvider": ("DELETE", "/providers/{}", "provider_id"),
    "ModelService/ListModels": ("GET", "/models", None),
    "ByokService/StoreKey": ("POST", "/byok", None),
    "ByokService/ListKeys": ("GET", "/byok", None),
    "ByokService/DeleteKey": ("DELETE", "/byok/{}", "key_id"),
    "SettingsService/GetSettings": ("GET", "/settings", None),
    "SettingsService/UpdateSettings": ("PUT", "/settings", None),
    "RoutingService/Route": ("POST", "/route", None),
    "UsageService/GetUsage": ("GET", "/usage", None),
}


def over_json(stack: LocalStack, rpc: str, request: dict[str, Any], token: str) -> dict[str, Any]:
    method, path, id_field = CALLS[rpc]
    fields = dict(request)
    if id_field:
        path = path.format(fields.pop(id_field))
    if method == "GET" and fields:
        path += "?" + "&".join(f"{name}={json.dumps(value).strip(chr(34))}" for name, value in fields.items())
    body = fields if method in ("POST", "PUT") else None
    answer = http_json.call(method, stack.base_url + path, token=token, body=body)
    assert answer.status in (200, 201), answer
    return answer.json


def over_buf_curl(stack: LocalStack, rpc: str, request: dict[str, Any], token: str) -> dict[str, Any]:
    return run(
        str(Path(sys.executable).with_name("buf")),
        "curl",
        "--protocol=grpc",
        "--http2-prior-knowledge",
        "--emit-defaults",
        f"--header=authorization: Bearer {token}",
        f"--data={json.dumps(request)}",
        f"http://{stack.grpc_address}/llmrouter.v2.{rpc}",
    )


def over_grpcurl(stack: LocalStack, rpc: str, request: dict[str, Any], token: str) -> dict[str, Any]:
    return run(
        "grpcurl",
        "-plaintext",
        "-emit-defaults",
        "-max-time=20",
        f"-H=authorization: Bearer {token}",
        f"-d={json.dumps(request)}",
        stack.grpc_address,
        f"llmrouter.v2.{rpc}",
    )


def run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return snake_case(json.loads(done.stdout))


def snake_case(value: Any) -> Any:
    """Write the names as in the protos; protobuf's own JSON has them in camelCase."""
    if isinstance(value, dict):
        return {snake_name(name): snake_case(item) for name, item in value.items()}
    return [snake_case(item) for item in value] if isinstance(value, list) else value


def snake_name(name: str) -> str:
    """Leave the keys of maps (`OpenRouter`, `ECO`) as they are."""
    if not name[:1].islower():
        return name
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).replace("per1m", "per_1m")


WAYS = {"json": over_json, "buf curl": over_buf_curl, "grpcurl": over_grpcurl}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest, stack: LocalStack) -> Ask:
    if request.param == "grpcurl" and shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed")
    way = WAYS[request.param]
    return lambda rpc, token, **fields: way(stack, rpc, fields, token)


@pytest.fixture
def admin(new_user: Callable[..., User]) -> str:
    return new_user("admin").token


@pytest.fixture
def user(new_user: Callable[..., User]) -> User:
    return new_user()


def provider_id(ask: Ask, admin: str, name: str) -> str:
    providers = ask("ProviderService/ListProviders", admin, page_size=500)["providers"]
    return next(provider["provider_id"] for provider in providers if provider["name"] == name)


def test_provider_management(ask: Ask, admin: str) -> None:
    listed = ask("ProviderService/ListProviders", admin, enabled_only=True)["providers"]
    assert [provider["name"] for provider in listed][:3] == ["Local vLLM", "Groq", "OpenRouter"]
    name = f"plan {uuid.uuid4()}"
    created = ask(
        "ProviderService/CreateProvider",
        admin,
        name=name,
        provider_type="openai",
        api_endpoint="https://llm.example.com/v1",
        priority=1,
    )
    assert (created["name"], created["priority"], created["is_enabled"]) == (name, 1, True)
    changed = ask("ProviderService/UpdateProvider", admin, provider_id=created["provider_id"], priority=2)
    assert (changed["name"], changed["priority"]) == (name, 2)
    disabled = ask("ProviderService/DisableProvider", admin, provider_id=created["provider_id"])
    assert disabled["is_enabled"] is False
    enabled = ask("ProviderService/ListProviders", admin, enabled_only=True, page_size=500)["providers"]
    everything = ask("ProviderService/ListProviders", admin, page_size=500)["providers"]
    assert name not in {provider["name"] for provider in enabled}
    assert name in {provider["name"] for provider in everything}


@pytest.mark.parametrize(("level", "count"), [("ECO", 4), ("BALANCED", 8), ("PRECISION", 9)])
def test_model_catalogue_by_level(ask: Ask, user: User, level: str, count: int) -> None:
    models = ask("ModelService/ListModels", user.token, power_level=level)["models"]
    assert len(models) == count
    assert {model["power_level"] for model in models} == {level}


def test_model_catalogue_by_provider(ask: Ask, admin: str, user: User) -> None:
    openai = provider_id(ask, admin, "OpenAI")
    models = ask("ModelService/ListModels", user.token, provider_id=openai)["models"]
    assert {model["model_name"] for model in models} == {
        "gpt-4o-mini",
        "gpt-4o",
        "o1-preview",
        "o1-mini",
        "gpt-4-turbo",
    }


async def test_byok_management(ask: Ask, admin: str, user: User, stack: LocalStack) -> None:
    openai = provider_id(ask, admin, "OpenAI")
    stored = ask("ByokService/StoreKey", user.token, provider_id=openai, api_key="sk-proj-abc123456789")
    assert (stored["key_prefix"], stored["provider_name"], stored["is_active"]) == ("sk-pro", "OpenAI", True)
    assert [key["key_id"] for key in ask("ByokService/ListKeys", user.token)["keys"]] == [stored["key_id"]]
    connection = await asyncpg.connect(stack.database_url)
    ciphertext = await connection.fetchval(
        "select encrypted_api_key from user_provider_keys where user_id = $1", user.id
    )
    await connection.close()
    assert ciphertext.startswith("gAAAA")  # Fernet's version and timestamp
    assert "sk-proj" not in ciphertext
    assert ask("ByokService/DeleteKey", user.token, key_id=stored["key_id"]) == {}
    assert ask("ByokService/ListKeys", user.token)["keys"] == []


def test_user_settings(ask: Ask, user: User) -> None:
    defaults = ask("SettingsService/GetSettings", user.token)
    assert defaults["preferred_power_level"] == "BALANCED"
    assert defaults["routing_config"] == {
        "strategy": "balanced",
        "cost_weight": 0.4,
        "latency_weight": 0.4,
        "quality_weight": 0.2,
    }
    assert "monthly_budget_usd" not in defaults
    level = ask("SettingsService/UpdateSettings", user.token, preferred_power_level="PRECISION")
    assert level["preferred_power_level"] == "PRECISION"
    weights = {"cost_weight": 0.6, "latency_weight": 0.2, "quality_weight": 0.2}
    changed = ask("SettingsService/UpdateSettings", user.token, routing_config=weights)
    assert changed["routing_config"] == {"strategy": "balanced"} | weights
    budget = ask("SettingsService/UpdateSettings", user.token, monthly_budget_usd=50.00)
    assert budget["monthly_budget_usd"] == 50
    after = ask("SettingsService/GetSettings", user.token)
    assert (after["preferred_power_level"], after["monthly_budget_usd"]) == ("PRECISION", 50)


@pytest.mark.parametrize(
    ("request_fields", "level", "options"),
    [
        ({"power_level": "ECO"}, "ECO", 2),
        ({}, "BALANCED", 3),
        ({"power_level": "PRECISION", "fallback_count": 5}, "PRECISION", 4),
    ],
)
def test_intelligent_routing(ask: Ask, user: User, request_fields: dict[str, Any], level: str, options: int) -> None:
    answer = ask("RoutingService/Route", user.token, **request_fields)
    assert (answer["power_level"], answer["total_options"]) == (level, options)
    scored = [answer["primary"], *answer["fallbacks"]]
    assert len(scored) == options
    for option in scored:
        for score in ("composite_score", "cost_score", "latency_score", "quality_score"):
            assert 0 <= option[score] <= 1
    assert scored == sorted(scored, key=lambda option: -option["composite_score"])


def test_usage_analytics(ask: Ask, user: User, stack: LocalStack) -> None:
    empty = ask("UsageService/GetUsage", user.token, days=30)
    assert (empty["total_requests"], empty["total_cost_usd"], empty["by_provider"]) == (0, 0, {})
    models = ask("ModelService/ListModels", user.token, power_level="BALANCED")["models"]
    model = next(model for model in models if model["model_name"] == "gpt-4o")
    with Client(stack.grpc_address, token=stack.identity.mint("service")) as service:
        for number in range(3):
            service.usage.RecordUsage(
                RecordUsageRequest(
                    user_id=str(user.id),
                    request_id=f"plan-{number}",
                    model_id=model["model_id"],
                    input_tokens=1000,
                    output_tokens=100,
                    latency_ms=400,
                )
            )
    after = ask("UsageService/GetUsage", user.token, days=30)
    assert (after["total_requests"], after["by_provider"]["OpenAI"]["requests"]) == (3, 3)
    assert after["total_cost_usd"] == pytest.approx(0.0105)  # 3 * (1000 * 2.50 + 100 * 10.00) / 1,000,000
    assert after["by_power_level"]["BALANCED"]["requests"] == 3
    assert ask("SettingsService/GetSettings", user.token)["current_month_spend_usd"] == pytest.approx(0.0105)
