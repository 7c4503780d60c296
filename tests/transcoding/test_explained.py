"""Why a decision came out as it did, as JSON: with the answer, and later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

import http_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import User
    from llmrouter_server.runtime.local_stack import LocalStack

OF_GATEWAY = {"model_name": "", "allow_fallbacks": False, "without_credential_provider_ids": []}
"""What only the gateway asks for."""


def explained(stack: LocalStack, user: User) -> dict[str, Any]:
    body = {"power_level": "ECO", "explain": True, "task_type": "chat"}
    answer = http_json.call("POST", f"{stack.base_url}/route", token=user.token, body=body)
    assert answer.status == 200
    return dict(answer.json)


def test_an_explanation_tells_the_fate_of_every_model(stack: LocalStack, new_user: Callable[..., User]) -> None:
    user = new_user()
    answer = explained(stack, user)
    told = answer["explanation"]
    assert {
        name: told[name] for name in ("user_id", "power_level", "task_type", "strategy", "weights", *OF_GATEWAY)
    } == {
        "user_id": str(user.id),
        "power_level": "ECO",
        "task_type": "chat",
        "strategy": "balanced",
        "weights": {"cost": 0.4, "latency": 0.4, "quality": 0.2},
        **OF_GATEWAY,
    }
    first, second, *others = told["models"]
    assert first == {
        "model_id": answer["primary"]["model_id"],
        "model_name": "Qwen/Qwen2.5-32B-Instruct",
        "provider_id": answer["primary"]["provider_id"],
        "provider_name": "Local vLLM",
        "power_level": "ECO",
        "rank": 1,
        "exclusion": "EXCLUSION_UNSPECIFIED",
        "exclusion_detail": "",
        "composite_score": pytest.approx(0.75),
        "cost_score": 1,
        "latency_score": 0.5,
        "quality_score": 0.75,
        "cost_usd": 0,
        "latency_ms": 200,
        "latency_is_live": False,
    }
    assert (second["model_name"], second["rank"]) == ("meta-llama/llama-3.1-405b", 2)
    assert len(others) >= 19
    gpt = next(model for model in others if model["model_name"] == "gpt-4o")
    assert (gpt["exclusion"], gpt["exclusion_detail"]) == (
        "EXCLUSION_POWER_LEVEL",
        "is BALANCED, ECO was routed for",
    )
    assert "rank" not in gpt
    assert "cost_score" not in gpt


async def until_written(stack: LocalStack, decision_id: str) -> None:
    connection = await asyncpg.connect(stack.database_url)
    async with asyncio.timeout(20):
        while not await connection.fetchval("select true from llm_decisions where id = $1", decision_id):
            await asyncio.sleep(0.02)
    await connection.close()


async def test_it_is_told_again_later_to_its_user_and_admins_and_to_nobody_else(
    stack: LocalStack, new_user: Callable[..., User]
) -> None:
    user = new_user()
    answer = explained(stack, user)
    url = f"{stack.base_url}/decisions/{answer['decision_id']}"
    for is_after in (False, True):  # while it waits to be written, and after
        if is_after:
            await until_written(stack, answer["decision_id"])
        for token in (user.token, new_user("admin").token):
            later = await asyncio.to_thread(http_json.call, "GET", url, token=token)
            assert (later.status, later.json) == (200, answer["explanation"])
    stranger = http_json.call("GET", url, token=new_user().token)
    assert (stranger.status, stranger.json["details"][0]["reason"]) == (404, "RESOURCE_NOT_FOUND")
