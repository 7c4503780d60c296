"""Finds the routing rule for a request: of the active ones, the first whose condition holds."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from llmrouter_server.rules.condition import Condition, ConditionError, NotEvaluatedError, bind, compile_condition
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.catalog.snapshot import CatalogRule
    from llmrouter_server.rules.condition import Situation

log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
"""A rule that cannot be evaluated is counted each time, and logged no more often than this."""


async def prepare(rules: Sequence[CatalogRule]) -> None:
    """Compile the conditions that are not yet, each with a turn for others: the rules are ready at once after it."""
    async for rule in in_turns(rules, 1):
        if rule.condition:
            with contextlib.suppress(ConditionError):
                compile_condition(rule.condition)


class ActiveRules:
    """The active rules of one snapshot of the catalogue, ready to be tried in turn."""

    def __init__(self, rules: Sequence[CatalogRule]) -> None:
        self._rules: list[tuple[CatalogRule, Condition | None]] = []
        self._logged_at = -LOG_EVERY_S
        for rule in rules:
            try:
                condition = compile_condition(rule.condition) if rule.condition else None
            except ConditionError as error:  # this release, or another library, takes it no more
                self._note_failure(rule, error)
            else:
                self._rules.append((rule, condition))
        self.use_now = any(condition is not None and condition.uses_now for _, condition in self._rules)
        """Whether the passing of time alone may change which rule matches."""

    def __bool__(self) -> bool:
        return bool(self._rules)

    def first_match(self, situation: Situation) -> CatalogRule | None:
        """Return the rule for a request, if there is one. A rule that cannot be evaluated does not match."""
        bound = None
        for rule, condition in self._rules:
            if condition is None:
                return rule
            if bound is None:
                bound = bind(situation)
            try:
                if condition.holds(bound):
                    return rule
            except NotEvaluatedError as error:
                self._note_failure(rule, error)
        return None

    def _note_failure(self, rule: CatalogRule, error: Exception) -> None:
        telemetry.RULES.labels(rule.rule_name, "failed").inc()
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.warning("a routing rule cannot be evaluated", extra={"rule": rule.rule_name, "error": str(error)})
