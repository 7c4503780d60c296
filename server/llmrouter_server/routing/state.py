"""What routing knows of users, kept in memory for as long as changes are heard of."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import UUID

from llmrouter_server.runtime import telemetry
from llmrouter_server.settings.preferences import Preferences

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from collections.abc import Set as AbstractSet

    from llmrouter_server.byok.live_keys import KeptKey

USER_CHANNEL, SPEND_CHANNEL = "llmrouter_user", "llmrouter_spend"
REFUSED_FOR = timedelta(minutes=15)
"""How long a key that its provider refused is left out."""
NOBODY: frozenset[UUID] = frozenset()
NO_KEYS: Mapping[UUID, KeptKey] = MappingProxyType({})
DEFAULTS = Preferences()


@dataclass(frozen=True, slots=True)
class UserState:
    """What routing knows of the user it routes for."""

    month: date
    """The UTC month of `spent_usd`, by its first day."""
    preferences: Preferences = DEFAULTS
    keyed_providers: AbstractSet[UUID] = NOBODY
    """Providers for which the user has an active key."""
    refused_at: Mapping[UUID, datetime] | None = None
    """When a provider last refused the user's key; none when none did."""
    spent_usd: Decimal = Decimal(0)
    sealed_keys: Mapping[UUID, KeptKey] = field(default_factory=lambda: NO_KEYS, repr=False)
    """The user's active keys, encrypted, by provider."""

    def failing_keys(self, now: datetime) -> AbstractSet[UUID]:
        """Return the providers that refused the user's key in the last 15 minutes."""
        if not self.refused_at:
            return NOBODY
        return frozenset(provider for provider, at in self.refused_at.items() if now - at < REFUSED_FOR)

    @property
    def is_over_budget(self) -> bool:
        """Whether the month's spend has reached the budget."""
        budget = self.preferences.monthly_budget_usd
        return budget is not None and self.spent_usd >= budget


class UserStates:
    """The states of the users seen last, at most `most` of them.

    `read` reads one from the database. While `is_told` says that changes are not heard of, every use reads.
    """

    def __init__(
        self,
        read: Callable[[UUID, date], Awaitable[UserState]],
        *,
        is_told: Callable[[], bool],
        most: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._read, self._is_told, self._most, self._now = read, is_told, most, now
        self._states: OrderedDict[UUID, UserState] = OrderedDict()
        self._reading: dict[UUID, object] = {}
        self._hit = telemetry.counter(telemetry.CACHE, "users", "hit")
        self._miss = telemetry.counter(telemetry.CACHE, "users", "miss")
        self._size = telemetry.CACHED.labels("users")

    async def get(self, user_id: UUID) -> UserState:
        """Return the user's state, with every change that was heard of before."""
        now = self._now()
        month = date(now.year, now.month, 1)
        state = self._states.get(user_id)
        if state is not None and state.month == month and self._is_told():
            self._states.move_to_end(user_id)
            self._hit.inc()
            return state
        self._miss.inc()
        # Reads that overlap share a ticket: the first to end is kept. If each took the place of the one before, a user
        # who always asks again before a read has ended would never be remembered.
        ticket = self._reading.setdefault(user_id, object())
        try:
            state = await self._read(user_id, month)
        finally:
            is_current = self._reading.get(user_id) is ticket
            if is_current:
                del self._reading[user_id]
        if is_current and self._is_told():
            self._keep(user_id, state)
        return state

    def forget(self, user_id: UUID) -> None:
        """Read the user's state again next time. One that is being read just now may be older: it is not kept."""
        self._states.pop(user_id, None)
        self._reading.pop(user_id, None)
        self._size.set(len(self._states))

    def forget_all(self) -> None:
        """Read every user's state again next time."""
        self._states.clear()
        self._reading.clear()
        self._size.set(0)

    def user_changed(self, payload: str) -> None:
        """Hear of a change of a user's settings or keys."""
        self.forget(UUID(payload))

    def spend_changed(self, payload: str) -> None:
        """Hear of what a user has spent: `<user> <first day of the month> <spent> <held>`."""
        user, month, spent, _ = payload.split(" ")
        user_id = UUID(user)
        state = self._states.get(user_id)
        if state is None or state.month != date.fromisoformat(month):
            self.forget(user_id)
        else:
            self._states[user_id] = replace(state, spent_usd=Decimal(spent))
            self._reading.pop(user_id, None)

    def _keep(self, user_id: UUID, state: UserState) -> None:
        self._states[user_id] = state
        self._states.move_to_end(user_id)
        if len(self._states) > self._most:
            self._states.popitem(last=False)
        self._size.set(len(self._states))
