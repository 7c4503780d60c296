"""Decides on a chat request: who may serve it, what money is held for it, and which credentials go along."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from llmrouter_server import errors
from llmrouter_server.audit import log as audit_log
from llmrouter_server.budget.ledger import HoldRequest
from llmrouter_server.byok.provider_auth import auth_of
from llmrouter_server.catalog.snapshot import PowerLevel
from llmrouter_server.gateway.chat import AUTO, head_of
from llmrouter_server.gateway.plan import MOST_KEPT, MOST_TOKENS, Candidate, Plan
from llmrouter_server.routing.router import Asked
from llmrouter_server.routing.scoring import Tokens
from llmrouter_server.usage.period import month_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from llmrouter_server.audit.key_reads import KeyRead
    from llmrouter_server.budget.store import BudgetStore
    from llmrouter_server.byok.credentials import Credentials
    from llmrouter_server.catalog.snapshot import CatalogModel
    from llmrouter_server.gateway.chat import ChatRequest
    from llmrouter_server.gateway.store import OpenRequests
    from llmrouter_server.routing.router import Routed, Router

log = logging.getLogger(__name__)

FALLBACKS = 3
EXPECTED_OUTPUT = 500
"""Tokens that costs are compared for, when the client sets no bound."""
LEVELS = {level.name.lower(): level for level in PowerLevel}
KEPT_OPEN = timedelta(minutes=20)
"""How long money is held and a report waited for: longer than Envoy lets a request take."""
PATIENCE_WITH_REASONING = 4
"""How much longer the first byte of a model that thinks first may take."""
ONE_MILLION = Decimal(1_000_000)
NO_CREDENTIAL = "-\t-\t"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a provider may take to begin its answer, in seconds."""

    stream_s: float = 30.0
    whole_s: float = 300.0
    """Of an answer that comes in one piece, which begins when it is complete."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what Envoy needs to carry it out."""

    plan: Plan
    credentials: str = field(repr=False)
    """For each candidate the name and the value of a header, each followed by a tab."""
    is_slow: bool
    """Whether it is a stream that a model which thinks first may serve."""


class Decider:
    """Makes plans. Whatever it sets up for a plan that is not carried out, `undo` takes back."""

    def __init__(
        self,
        router: Router,
        credentials: Credentials,
        budget: BudgetStore,
        requests: OpenRequests,
        *,
        is_usable: Callable[[UUID, str], bool],
        patience: Patience,
        now: Callable[[], datetime],
    ) -> None:
        """`is_usable` says whether Envoy knows a provider at an endpoint already."""
        self._router, self._credentials, self._budget, self._requests = router, credentials, budget, requests
        self._is_usable, self._patience, self._now = is_usable, patience, now

    async def decide(self, chat: ChatRequest, *, user_id: UUID, reader_id: UUID) -> Prepared:
        """Return the plan, with its money held, its request noted and its credentials audited.

        NO_ELIGIBLE_MODEL; BUDGET_EXCEEDED; RATE_LIMITED: too many requests at once; INVALID_FIELD: the price cannot be
        known beforehand, and there is a budget; UNAVAILABLE; INTERNAL: a credential cannot be decrypted.
        """
        asked = _asked(chat, user_id)
        routed, models = await self._route(asked)
        budget, now = routed.record.facts.budget_usd, self._now()
        if budget is not None or any(_payer(routed, model) == "PLATFORM" for model in models):
            _require_price(chat)
        prepared = await self._prepare(chat, routed, models, now=now, budget=budget, reader_id=reader_id)
        if prepared is None and budget is not None:
            routed, models = await self._within(budget, now, asked, chat, (routed, models))
            prepared = await self._prepare(chat, routed, models, now=now, budget=budget, reader_id=reader_id)
        if prepared is None:  # others were quicker
            raise errors.no_room_in_budget(budget or Decimal(0), _dearest(chat, models), None)
        return prepared

    async def undo(self, plan: Plan) -> None:
        """Give back what was set up for a plan that nobody carries out. What cannot be given back now expires."""
        try:
            await self._requests.close([plan.decision_id])
            if plan.held:
                await self._budget.release(plan.decision_id)
        except errors.DomainError as error:
            log.warning("a plan could not be undone", extra={"decision_id": str(plan.decision_id), "error": str(error)})

    async def _route(self, asked: Asked) -> tuple[Routed, list[CatalogModel]]:
        routed = await self._router.route(asked)
        usable = routed.decision.first(1 + FALLBACKS, lambda each: self._is_usable(each.provider_id, each.api_endpoint))
        if not usable:  # a provider that was created a moment ago
            raise errors.unavailable()
        return routed, [scored.model for scored in usable]

    async def _within(
        self, budget: Decimal, now: datetime, asked: Asked, chat: ChatRequest, found: tuple[Routed, list[CatalogModel]]
    ) -> tuple[Routed, list[CatalogModel]]:
        """Leave out what the budget has no room for.

        When nothing is left, a free model serves users who want that; the others get an error that says what would fit.
        """
        routed, models = found
        state = await self._budget.state(asked.user_id, month_of(now))
        room = max(budget - state.spent_usd - state.held_usd, Decimal(0))
        affordable = [model for model in models if _worst_cost(chat, model) <= room]
        if affordable:
            return routed, affordable
        if await self._router.downgrades(asked.user_id) and not routed.record.facts.need.free_only:
            return await self._route(replace(asked, free_only=True))
        cheapest = min(models, key=lambda model: _worst_cost(chat, model))
        raise errors.no_room_in_budget(budget, _worst_cost(chat, cheapest), _output_that_fits(chat, cheapest, room))

    def _plan(
        self, chat: ChatRequest, routed: Routed, models: Sequence[CatalogModel], now: datetime, *, is_held: bool
    ) -> Plan:
        first_byte_s = self._patience.stream_s if chat.stream else self._patience.whole_s
        if chat.stream and _thinks_first(models):
            first_byte_s *= PATIENCE_WITH_REASONING
        return Plan(
            decision_id=routed.record.id,
            user_id=routed.record.user_id,
            decided_at=now,
            stream=chat.stream,
            hide_usage=not chat.wants_usage,
            prompt_tokens=chat.prompt_tokens,
            prompt_bound=chat.prompt_bound,
            output_bound=min(max(_most_output(chat, model) for model in models), MOST_TOKENS),
            held=is_held,
            first_byte_ms=round(first_byte_s * 1000),
            candidates=tuple(
                _candidate(
                    model.provider_id,
                    model.provider_name,
                    model.provider_type,
                    model.model_id,
                    model.model_name,
                    model.max_context_tokens,
                    _payer(routed, model),
                    chat.max_output,
                )
                for model in models
            ),
        )

    async def _prepare(
        self,
        chat: ChatRequest,
        routed: Routed,
        models: Sequence[CatalogModel],
        *,
        now: datetime,
        budget: Decimal | None,
        reader_id: UUID,
    ) -> Prepared | None:
        """Make the plan and commit what must be before it is carried out; None: the budget has no room for it."""
        amount = Decimal(0) if budget is None else _dearest(chat, models)
        plan = self._plan(chat, routed, models, now, is_held=amount > 0)
        headers, reads = self._unlock(plan, routed, models, reader_id)
        money = None
        if budget is not None and plan.held:
            money = HoldRequest(plan.decision_id, plan.user_id, month_of(now), amount, budget, now, now + KEPT_OPEN)
        try:
            if not await self._requests.open(plan, money, reads):
                return None
        except BaseException:
            await asyncio.shield(self.undo(plan))
            raise
        for read in reads:
            audit_log.count(read)
        credentials = (headers.get(model.provider_id, NO_CREDENTIAL) for model in models)
        return Prepared(plan, "".join(credentials), is_slow=plan.stream and _thinks_first(models))

    def _unlock(
        self, plan: Plan, routed: Routed, models: Sequence[CatalogModel], reader_id: UUID
    ) -> tuple[dict[UUID, str], list[KeyRead]]:
        """Decrypt the key of each provider, and return their headers with what the audit must have before they go."""
        headers: dict[UUID, str] = {}
        reads = []
        for model in models:
            key = routed.key_for(model.provider_id)
            if key is None or model.provider_id in headers:
                continue
            opened, read = self._credentials.unlock(
                key, user_id=plan.user_id, reader_id=reader_id, purpose="gateway", decision_id=plan.decision_id
            )
            name, value = auth_of(model.provider_type).chat_header(opened.credential)
            headers[model.provider_id] = f"{name}\t{value}\t"
            reads.append(read)
        return headers, reads


@functools.lru_cache(maxsize=MOST_KEPT)
def _candidate(  # noqa: PLR0917 - what it is kept by
    provider_id: UUID,
    provider: str,
    provider_type: str,
    model_id: UUID,
    model: str,
    context: int,
    payer: str,
    max_output: int | None,
) -> Candidate:
    """Make a candidate, or return the one that was made before: so is what others make of it."""
    auth = auth_of(provider_type)
    return Candidate(
        provider_id=provider_id,
        provider=provider,
        model_id=model_id,
        model=model,
        payer=payer,
        context=context,
        path=auth.chat_path,
        head=head_of(model, auth.max_tokens_name, max_output),
    )


def _dearest(chat: ChatRequest, models: Sequence[CatalogModel]) -> Decimal:
    return max(_worst_cost(chat, model) for model in models)


def _thinks_first(models: Sequence[CatalogModel]) -> bool:
    return any("reasoning" in model.capabilities for model in models)


def _asked(chat: ChatRequest, user_id: UUID) -> Asked:
    is_named = chat.model != AUTO and chat.model not in LEVELS
    return Asked(
        user_id=user_id,
        power_level=LEVELS.get(chat.model),
        # Who names a model knows what it can do; the catalogue may not.
        capabilities=frozenset() if is_named else chat.capabilities,
        context_tokens=chat.prompt_tokens + (chat.max_output or 0),
        fallback_count=FALLBACKS,
        tokens=Tokens(chat.prompt_tokens, (chat.max_output or EXPECTED_OUTPUT) * chat.choices),
        task_type="",
        model_name=chat.model if is_named else None,
        allow_fallbacks=chat.allow_fallbacks,
        needs_credential=True,
    )


def _payer(routed: Routed, model: CatalogModel) -> str:
    key = routed.key_for(model.provider_id)
    return "PLATFORM" if key is None else key.payer


def _require_price(chat: ChatRequest) -> None:
    if chat.priced_apart:
        raise errors.invalid(
            *(
                (name, "makes a price that is not known beforehand: it is for own keys without a budget only")
                for name in chat.priced_apart
            )
        )


def _most_output(chat: ChatRequest, model: CatalogModel) -> int:
    """Return the most tokens that all choices together can have: nothing is longer than the model's context."""
    return min(chat.max_output or model.max_context_tokens, model.max_context_tokens) * chat.choices


def _prices(model: CatalogModel) -> tuple[Decimal, Decimal]:
    """Return the prices of one token in US dollars, exactly: the catalogue's have four decimals."""
    return _price(model.input_cost_per_1m), _price(model.output_cost_per_1m)


@functools.lru_cache(maxsize=MOST_KEPT)
def _price(per_1m: float) -> Decimal:
    return Decimal(repr(per_1m)) / ONE_MILLION


def _worst_cost(chat: ChatRequest, model: CatalogModel) -> Decimal:
    """Return the most that an attempt can cost. Each choice may be billed its own prompt."""
    price_in, price_out = _prices(model)
    return price_in * chat.prompt_bound * chat.choices + price_out * _most_output(chat, model)


def _output_that_fits(chat: ChatRequest, model: CatalogModel, room: Decimal) -> int | None:
    """Return the `max_tokens` with which the request would fit, if there is any."""
    price_in, price_out = _prices(model)
    left = room - price_in * chat.prompt_bound * chat.choices
    if left <= 0 or not price_out:
        return None
    return int(left / (price_out * chat.choices)) or None
