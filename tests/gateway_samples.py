"""Plans of chat requests, and what Envoy tells of them when they are over, for the tests."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import uuid_utils.compat as uuid_utils

from llmrouter_server.budget.ledger import HoldRequest
from llmrouter_server.budget.store import BudgetStore
from llmrouter_server.gateway.ended import Ended, ended_from
from llmrouter_server.gateway.plan import Candidate, Plan
from llmrouter_server.gateway.reporting import Reporter
from llmrouter_server.gateway.store import GatewayRequestStore, OpenRequests
from llmrouter_server.usage.period import month_of
from usage_samples import model_ids, quiet_recorder, usage_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from llmrouter_server.runtime.database import Database
    from llmrouter_server.usage.recorder import UsageRecorder

NOW = datetime(2026, 3, 31, 23, 59, 50, tzinfo=UTC)
STARTED_MS = 1_774_999_190_000
LASTS, HELD_FOR = timedelta(minutes=15), timedelta(minutes=20)
BUDGET = Decimal(10)
HOLD = Decimal("0.0075")
"""What a sample costs at worst: 1000 tokens in for 2.50, 500 out for 10.00 US dollars a million (gpt-4o)."""
BOOKS = """
select
    (select coalesce(sum(spent_usd), 0) from llm_budget_ledger where user_id = $1) as spent,
    (select coalesce(sum(held_usd), 0) from llm_budget_ledger where user_id = $1) as held,
    (select coalesce(sum(amount_usd), 0) from llm_budget_holds where user_id = $1) as holds,
    (select coalesce(sum(cost_usd), 0) from llm_usage_logs where user_id = $1) as recorded,
    (select count(*) from llm_gateway_requests where user_id = $1) as open"""
RECORDS = """
select request_id, status, failure, input_tokens, output_tokens, cached_tokens, is_estimated, created_at
from llm_usage_logs where user_id = $1 order by request_id"""


def candidate(model_id: uuid.UUID | None = None, **changes: Any) -> Candidate:
    values = {
        "provider_id": uuid.uuid4(),
        "provider": "OpenAI",
        "model_id": model_id or uuid.uuid4(),
        "model": "gpt-4o",
        "payer": "PLATFORM",
        "context": 128_000,
        "path": "/chat/completions",
        "head": '{"model":"gpt-4o",',
    }
    return Candidate(**(values | changes))


def plan(*candidates: Candidate, **changes: Any) -> Plan:
    values = {
        "decision_id": uuid_utils.uuid7(),
        "user_id": uuid.uuid4(),
        "decided_at": NOW,
        "stream": True,
        "hide_usage": True,
        "prompt_tokens": 800,
        "prompt_bound": 1000,
        "output_bound": 500,
        "held": True,
        "first_byte_ms": 30_000,
        "candidates": candidates or (candidate(), candidate(payer="USER_KEY")),
    }
    return Plan(**(values | changes))


def attempts(*outcomes: str) -> dict[str, str]:
    """Attempts at the first candidate, then the second and so on, each 100 ms long, one after the other."""
    noted = {}
    for number, outcome in enumerate(outcomes, 1):
        started = STARTED_MS + 100 * (number - 1)
        noted[str(number)] = f"{number}:{outcome}:{started}:{'' if outcome == 'open' else started + 100}"
    return noted


def row(of: Plan, *outcomes: str, **changes: Any) -> dict[str, Any]:
    """A line of the journal: of a stream that went well, unless told otherwise."""
    values = {
        "plan": of.to_dict(),
        "attempts": attempts(*(outcomes or ("200",))),
        "usage": {"input_tokens": 700.0, "output_tokens": 60.0, "cached_tokens": 100.0, "reasoning_tokens": 20.0},
        "stream": {"events": 64.0, "bytes": 16_000.0, "ended": "done"},
        "status": 200,
        "flags": "-",
        "bytes": 16_000,
        "duration_ms": 2000,
    }
    return values | changes


def ended(of: Plan, *outcomes: str, **changes: Any) -> Ended:
    """The same, as the access log tells it."""
    values = row(of, *outcomes, **changes)
    found = ended_from(
        {f"llmrouter.{name}": values[name] for name in ("plan", "attempts", "usage", "stream")},
        status=values["status"],
        flags=values["flags"].split(",") if values["flags"] != "-" else (),
        body_bytes=values["bytes"],
        duration_ms=values["duration_ms"],
    )
    assert found is not None
    return found


class Books(NamedTuple):
    """What is stored of a user. Money is in US dollars."""

    spent: Decimal
    held: Decimal
    holds: Decimal
    recorded: Decimal
    open: int


def money_for(made: Plan, amount: Decimal = HOLD, budget: Decimal = BUDGET) -> HoldRequest:
    """What is to be held for a plan."""
    since = made.decided_at
    return HoldRequest(made.decision_id, made.user_id, month_of(since), amount, budget, since, since + HELD_FOR)


class Gateway:
    """What the gateway keeps its books with, as one replica has it. Time stands still at `now`."""

    def __init__(self, database: Database, models: Mapping[str, uuid.UUID]) -> None:
        self.database, self.models, self.now = database, models, NOW
        self.budget = BudgetStore(database)
        self.store = GatewayRequestStore(database, most_at_once=3)
        self.requests = OpenRequests(self.store, lasts=LASTS)
        self.recorder: UsageRecorder = quiet_recorder(usage_store(database))
        self.reporter = Reporter(self.recorder, self.store, self.budget, lambda: self.now)

    async def start(self) -> None:
        for part in (self.recorder, self.requests, self.reporter):
            await part.start()

    async def stop(self) -> None:
        for part in (self.reporter, self.requests, self.recorder):
            await part.stop()

    def plan(self, **changes: Any) -> Plan:
        """Make a plan of two candidates: gpt-4o, then gpt-4o-mini."""
        names = ("gpt-4o", "gpt-4o-mini")
        return plan(*(candidate(self.models[name], model=name) for name in names), **changes)

    async def begin(self, **changes: Any) -> Plan:
        """Do what is done before a plan is answered."""
        made = self.plan(**changes)
        assert await self.requests.open(made, money_for(made) if made.held else None)
        return made

    async def books(self, user: uuid.UUID) -> Books:
        async with self.database.connection() as connection:
            return Books(*await connection.fetchrow(BOOKS, user))

    async def records(self, user: uuid.UUID) -> list[tuple[Any, ...]]:
        """Return each record's attempt, status, failure, tokens in, out and cached, and whether they are estimated."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(RECORDS, user)
        return [(int(each["request_id"].rpartition("/")[2]), *tuple(each)[1:7]) for each in rows]


class Away:
    """Stands in for one call of a store, and fails as told so many times before it lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, problem: Exception, times: int) -> None:
        self.left, self.problem, self.real = times, problem, getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    async def __call__(self, *arguments: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            raise self.problem
        return await self.real(*arguments)


async def running(database: Database) -> Gateway:
    gateway = Gateway(database, await model_ids(database))
    await gateway.start()
    return gateway
