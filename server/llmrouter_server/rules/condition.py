"""The conditions of routing rules: CEL expressions, checked when they are saved, and bounded in what they can cost.

CEL's library is loaded when there is the first condition: a server without any is spared it.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import descriptor_pool

from llmrouter_server.rules.checked import outline_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter_server.rules.checked import Call

MAX_CHARS = 1000
MAX_PROBLEM_CHARS = 300
MOST_KEPT = 1024
"""How many conditions are kept compiled."""
_PLACE = re.compile(r"ERROR: <input>:\d+:(\d+): (.*)")
_OPERATOR, _BARE = re.compile(r"'_?(\W{1,2})_'"), r"'\1'"
_ZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}|[+-]?\d\d:\d\d", re.ASCII)
"""A name of the time zone database, or a difference to UTC. Nothing else is looked for among the system's files."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ConditionError(Exception):
    """An expression is no condition; its text says why, for whoever wrote it."""


class NotEvaluatedError(Exception):
    """A condition has no value for a request, as after a division by zero."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a condition is evaluated for."""

    task_type: str
    power_level: str
    """Asked for, or the user's preferred one."""
    model: str
    required_capabilities: Sequence[str]
    min_context_tokens: int
    input_tokens: int
    output_tokens: int
    user_id: str
    now: datetime
    """In UTC, in whole minutes."""


Bound: TypeAlias = Any
"""A situation as CEL takes it."""


def bind(situation: Situation) -> Bound:
    """Prepare a situation for the evaluation of any number of conditions."""
    _, environment = _cel()
    return environment.Activation({name: getattr(situation, name) for name in Situation.__slots__})


class Condition:
    """A condition, ready to be evaluated. Use it from one thread."""

    def __init__(self, text: str) -> None:
        """Check the expression; ConditionError."""
        self._expression = _compile(text)
        self.uses_now = "now" in text

    def holds(self, bound: Bound) -> bool:
        """Evaluate it for a situation that was bound; NotEvaluatedError."""
        try:
            value = self._expression.eval(bound).value()
        except Exception as error:
            raise NotEvaluatedError(str(error)) from error
        if not isinstance(value, bool):
            raise NotEvaluatedError(str(value))
        return value


@functools.lru_cache(maxsize=MOST_KEPT)
def compile_condition(text: str) -> Condition:
    """Return the condition; ConditionError."""
    return Condition(text)


@functools.cache
def _cel() -> tuple[Any, Any]:
    """Load CEL and return its module, with the environment that conditions are compiled in."""
    from cel_expr_python import cel  # noqa: PLC0415 - see above

    string, number = cel.Type.STRING, cel.Type.INT
    variables = {
        "task_type": string,
        "power_level": string,
        "model": string,
        "required_capabilities": cel.Type.List(string),
        "min_context_tokens": number,
        "input_tokens": number,
        "output_tokens": number,
        "user_id": string,
        "now": cel.Type.TIMESTAMP,
    }
    # Of messages, conditions know none but CEL's own.
    return cel, cel.NewEnv(descriptor_pool=descriptor_pool.DescriptorPool(), variables=variables)


def _compile(text: str) -> Any:  # noqa: ANN401 - CEL's library has no types
    cel, environment = _cel()
    try:
        expression = environment.compile(text)
        kind = expression.return_type()
    except RuntimeError as error:
        raise ConditionError(_problem(str(error))) from None
    if kind != cel.Type.BOOL:
        raise ConditionError(f"must be of type bool, not {kind.name().lower()}")
    outline = outline_of(expression.serialize())
    if outline.nested_comprehensions:
        raise ConditionError(
            "must have no all, exists, exists_one, filter or map within another one: it could take long"
        )
    for call in outline.calls:
        _check_call(call, environment)
    return expression


def _check_call(call: Call, environment: Any) -> None:  # noqa: ANN401 - CEL's library has no types
    """Refuse what could take long, or could look for a file of any name: both at the wish of who asks for a model."""
    if call.function == "matches":
        raise ConditionError("must have no regular expression: use ==, in, startsWith, endsWith or contains")
    if call.function.startswith("get") and call.literals:  # getHours and its like: the argument is a time zone
        zone = call.literals[0]
        if zone is None:
            raise ConditionError(f"must have the time zone of {call.function} written out")
        known = _ZONE.fullmatch(zone) and environment.compile(f'now.getHours("{zone}") >= 0')
        if not known or not isinstance(known.eval(data={"now": _EPOCH}).value(), bool):
            raise ConditionError(f"must have a time zone such as Europe/Berlin in {call.function}, not {zone[:50]}")


def _problem(error: str) -> str:
    """Say the first thing that is wrong, and where."""
    if "recursion" in error:
        return "must not be nested as deeply"
    found = _PLACE.search(error)
    what = f"at character {found[1]}, {_OPERATOR.sub(_BARE, found[2])}" if found else error.partition(": ")[2]
    return f"must be a CEL expression: {what[:MAX_PROBLEM_CHARS]}"
