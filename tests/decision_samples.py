"""Decisions for tests, made as Route makes them, and the stores and the log that keep them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uuid_utils.compat as uuid_utils

from databases import started
from llmrouter_server.byok.live_keys import PlatformKeys
from llmrouter_server.byok.store import KeyStore
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.catalog.store import CatalogStore
from llmrouter_server.routing.eligibility import Need
from llmrouter_server.routing.log import DecisionLog
from llmrouter_server.routing.record import DecisionRecord, Facts, choices_of
from llmrouter_server.routing.scoring import ONE_MILLION_EACH, Tokens, Weights
from llmrouter_server.routing.store import RoutingStore
from llmrouter_server.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from llmrouter_server.catalog.snapshot import Snapshot
    from llmrouter_server.routing.selection import Decision

FACTS = Facts(Need(PowerLevel.BALANCED), Weights(), ONE_MILLION_EACH, "balanced", 3, task_type="chat")
PATIENCE_S = 10


@dataclass
class House:
    """A database with what keeps decisions in it."""

    url: str
    database: Database
    store: RoutingStore
    catalog: CatalogStore

    async def keep(self, *decided: tuple[DecisionRecord, Decision]) -> None:
        """Write decisions as Route does."""
        log = DecisionLog(self.store)
        await log.start()
        for record, decision in decided:
            log.add(record, decision)
        await log.stop()
        assert not [record for record, _ in decided if log.find(record.id)]

    def platform_keys(self) -> PlatformKeys:
        """Return the platform's keys, read with every use."""
        return PlatformKeys(KeyStore(self.database).platform_keys, is_told=lambda: False)

    async def execute(self, statement: str, *values: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *values)


@contextlib.asynccontextmanager
async def keeping(url: str) -> AsyncIterator[House]:
    database = await started(Database(url, min_size=1, max_size=5))
    yield House(url, database, RoutingStore(database), CatalogStore(database))
    await database.stop()


def decided(snapshot: Snapshot, facts: Facts = FACTS, at: datetime | None = None) -> tuple[DecisionRecord, Decision]:
    """Decide for somebody new, now or at that moment."""
    decision = facts.decide(snapshot.models)
    record = DecisionRecord(
        id=id_at(at) if at else uuid_utils.uuid7(),
        user_id=uuid.uuid4(),
        snapshot_number=snapshot.number,
        facts=facts,
        choices=choices_of(decision, facts.fallback_count),
        degraded=decision.degraded,
    )
    return record, decision


def id_at(at: datetime) -> uuid.UUID:
    """Make a UUIDv7 of that moment."""
    milliseconds = int(at.timestamp() * 1000)
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | uuid.uuid4().int & (1 << 62) - 1)


async def keep_four(house: House) -> None:
    """Keep four decisions of users without keys. After each arrow: what would be chosen by quality alone."""
    snapshot = await house.catalog.load_snapshot()
    small = replace(FACTS, tokens=Tokens(2000, 1000))
    await house.keep(
        # Qwen 2.5 32B (free, 200 ms, 7.5) -> Llama 3.1 405B (0.10 and 0.10, 400 ms, 9.0)
        decided(snapshot, replace(small, need=Need(PowerLevel.ECO))),
        # Qwen 2.5 72B (0.35 and 0.40, 350 ms, 8.8) -> DeepSeek V3 (0.27 and 1.10, 400 ms, 9.0; Llama 3.3 is as good,
        # but comes later by its name)
        decided(snapshot, replace(FACTS, need=Need(PowerLevel.BALANCED))),
        # Gemini 2.0 Flash Thinking (free, 1500 ms, 9.4) -> DeepSeek R1 (0.55 and 2.19, 3500 ms, 9.7)
        decided(snapshot, replace(FACTS, need=Need(PowerLevel.PRECISION))),
        # only Qwen 2.5 32B is left
        decided(snapshot, replace(FACTS, need=Need(PowerLevel.ECO, free_only=True))),
    )


async def written(log: DecisionLog, decision_id: uuid.UUID) -> None:
    """Wait until it is not waiting any more."""
    async with asyncio.timeout(PATIENCE_S):
        while log.find(decision_id) is not None:
            await asyncio.sleep(0.01)
