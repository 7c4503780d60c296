"""The initial catalogue, row by row, from design.md's table and the figures the product was asked for with."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import asyncpg
import pytest

from databases import started
from llmrouter_server.runtime.database import Database
from llmrouter_server.runtime.migrations import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PROVIDERS = {
    ("Local vLLM", 100, "local", False, "http://localhost:8000/v1"),
    ("Groq", 95, "groq", True, "https://api.groq.com/openai/v1"),
    ("OpenRouter", 90, "openrouter", False, "https://openrouter.ai/api/v1"),
    ("OpenAI", 80, "openai", True, "https://api.openai.com/v1"),
    ("Anthropic", 80, "anthropic", True, "https://api.anthropic.com/v1"),
    ("Together AI", 70, "together", True, "https://api.together.xyz/v1"),
    ("HuggingFace", 60, "huggingface", True, "https://router.huggingface.co/v1"),
}

# level; provider; model name; input and output US dollars per million tokens; latency ms; quality rating
MODELS = """
ECO       | Groq        | mixtral-8x7b-32768                             |  0.00 |  0.00 |  250 | 8.0
ECO       | Groq        | llama-3.1-70b-versatile                        |  0.00 |  0.00 |  300 | 8.5
ECO       | Local vLLM  | Qwen/Qwen2.5-32B-Instruct                      |  0.00 |  0.00 |  200 | 7.5
ECO       | OpenRouter  | meta-llama/llama-3.1-405b                      |  0.10 |  0.10 |  400 | 9.0
BALANCED  | OpenAI      | gpt-4o-mini                                    |  0.15 |  0.60 |  400 | 8.5
BALANCED  | Anthropic   | claude-3-5-haiku-20241022                      |  0.25 |  1.25 |  350 | 8.7
BALANCED  | OpenRouter  | qwen/qwen-2.5-72b-instruct                     |  0.35 |  0.40 |  350 | 8.8
BALANCED  | OpenRouter  | meta-llama/llama-3.3-70b-instruct              |  0.50 |  0.50 |  300 | 9.0
BALANCED  | OpenAI      | gpt-4o                                         |  2.50 | 10.00 |  500 | 9.3
BALANCED  | OpenRouter  | deepseek/deepseek-chat                         |  0.27 |  1.10 |  400 | 9.0
BALANCED  | Together AI | meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo  |  3.00 |  3.00 |  600 | 9.2
BALANCED  | HuggingFace | Qwen/Qwen2.5-72B-Instruct                      |  0.50 |  0.50 |  450 | 8.5
PRECISION | Anthropic   | claude-3-5-sonnet-20241022                     |  3.00 | 15.00 |  600 | 9.8
PRECISION | OpenAI      | o1-preview                                     | 15.00 | 60.00 | 5000 | 9.9
PRECISION | OpenAI      | o1-mini                                        |  3.00 | 12.00 | 3000 | 9.5
PRECISION | OpenRouter  | google/gemini-2.0-flash-thinking-exp           |  0.00 |  0.00 | 1500 | 9.4
PRECISION | OpenRouter  | deepseek/deepseek-r1                           |  0.55 |  2.19 | 3500 | 9.7
PRECISION | Anthropic   | claude-3-opus-20240229                         | 15.00 | 75.00 |  800 | 9.9
PRECISION | OpenRouter  | meta-llama/llama-3.1-405b-instruct             |  3.50 |  4.00 |  700 | 9.5
PRECISION | OpenRouter  | google/gemini-pro-1.5                          |  1.25 |  5.00 |  600 | 9.2
PRECISION | OpenAI      | gpt-4-turbo                                    | 10.00 | 30.00 |  800 | 9.4
"""


@pytest.fixture(scope="module")
async def database(migrated_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Database]:
    """One of its own: other tests add to the catalogue of theirs."""
    database = await started(Database(await migrated_database(), min_size=1, max_size=2))
    yield database
    await database.stop()


async def test_the_7_providers_are_there_exactly(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select name, priority, provider_type, requires_byok, api_endpoint from llm_providers where is_enabled"
        )
    assert {tuple(row) for row in rows} == PROVIDERS
    assert len(rows) == 7


async def test_the_21_models_are_there_exactly(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select m.power_level, p.name, m.model_name, m.input_cost_per_1m, m.output_cost_per_1m, m.avg_latency_ms,"
            " m.quality_score from llm_models m join llm_providers p on p.id = m.provider_id where m.is_enabled"
        )
    expected = [[cell.strip() for cell in line.split("|")] for line in MODELS.strip().splitlines()]
    assert len(expected) == 21
    assert {tuple(row) for row in rows} == {
        (level, provider, name, Decimal(cost_in), Decimal(cost_out), int(latency), Decimal(rating))
        for level, provider, name, cost_in, cost_out, latency, rating in expected
    }


async def test_every_model_is_described(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch("select * from llm_models")
    for row in rows:
        assert row["display_name"], row["model_name"]
        assert {"chat", "streaming"} <= set(row["capabilities"]), row["model_name"]
        assert row["supports_streaming"], row["model_name"]
        assert row["max_context_tokens"] >= 32_768, row["model_name"]


async def test_seeding_again_changes_nothing_and_keeps_an_admins_edit(
    migrated_database: Callable[[], Awaitable[str]],
) -> None:
    connection = await asyncpg.connect(await migrated_database())
    await connection.execute("update llm_providers set priority = 7, is_enabled = false where name = 'Groq'")
    await connection.execute("update llm_models set input_cost_per_1m = 99 where model_name = 'gpt-4o'")
    everything = (
        "select (select json_agg(p order by id) from llm_providers p)::text,"
        " (select json_agg(m order by id) from llm_models m)::text"
    )
    before = await connection.fetchrow(everything)
    async with connection.transaction():
        await connection.execute(load()[1].sql)
    assert await connection.fetchrow(everything) == before
    await connection.close()
