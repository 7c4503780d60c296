"""Conditions of routing rules: what they know, what is no condition and why, and that none takes long."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrouter_server.rules.condition import (
    MAX_CHARS,
    Condition,
    ConditionError,
    NotEvaluatedError,
    Situation,
    bind,
    compile_condition,
)

SITUATION = Situation(
    task_type="batch",
    power_level="PRECISION",
    model="gpt-4o",
    required_capabilities=["chat", "vision"],
    min_context_tokens=8192,
    input_tokens=1000,
    output_tokens=0,
    user_id="00000000-0000-0000-0000-000000000001",
    now=datetime(2026, 1, 31, 22, 59, tzinfo=UTC),  # a Saturday
)
OF_ONE_COMPREHENSION = "must have no all, exists, exists_one, filter or map within another one: it could take long"


def holds(text: str, **changes: Any) -> bool:
    return Condition(text).holds(bind(replace(SITUATION, **changes)))


@pytest.mark.parametrize(
    "text",
    [
        "true",
        'task_type == "batch"',
        'task_type.startsWith("ba") && task_type.endsWith("tch") && task_type.contains("atc") && size(task_type) == 5',
        'power_level in ["BALANCED", "PRECISION"]',
        'model == "gpt-4o"',
        '"vision" in required_capabilities && !("code" in required_capabilities)',
        'required_capabilities.exists(each, each in ["vision", "tools"])',
        "min_context_tokens > 8000 && input_tokens + output_tokens == 1000",
        'user_id == "00000000-0000-0000-0000-000000000001"',
        "now.getHours() >= 22 || now.getHours() < 6",
        'now.getHours("Europe/Berlin") == 23 && now.getHours("+02:00") == 0 && now.getDayOfWeek() == 6',
        'now >= timestamp("2026-01-31T22:59:00Z") && now < timestamp("2026-01-31T23:00:00Z")',
        'now - timestamp("2026-01-01T00:00:00Z") > duration("24h")',
        "output_tokens == 0 || input_tokens / output_tokens > 10 // a comment",
    ],
)
def test_a_condition_knows_the_request_the_user_and_the_time(text: str) -> None:
    assert holds(text)
    assert not holds(f"!({text.partition(' //')[0]})")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("task_type ==", "must be a CEL expression: at character 13, Syntax error: mismatched input '<EOF>'"),
        ("task_type == 1", "at character 11, found no matching overload for '==' applied to '(string, int)'"),
        ("colour == 1", "at character 1, undeclared reference to 'colour'"),
        ("input_tokens > 1.5", "at character 14, found no matching overload for '>' applied to '(int, double)'"),
        ("now", "must be of type bool, not timestamp"),
        ("input_tokens + 1", "must be of type bool, not int"),
        ("dyn(true)", "must be of type bool, not dyn"),
        ("{[1]: 1}", "must be a CEL expression: Unsupported map key type"),
        ("llmrouter.v2.Model{} == llmrouter.v2.Model{}", "undeclared reference to 'llmrouter.v2.Model'"),
        ("(" * 100 + "true" + ")" * 100, "must not be nested as deeply"),
        ("[1].all(x, [1].all(y, x == y))", OF_ONE_COMPREHENSION),
        ('[task_type].map(a, a + a).map(a, a + a) == [""]', OF_ONE_COMPREHENSION),
        ("[[1].map(x, x)].all(y, y == [1])", OF_ONE_COMPREHENSION),
        ('task_type.matches("(a+)+$")', "must have no regular expression"),
        ('matches("a", task_type)', "must have no regular expression"),
        ('[1].all(x, "a".matches("a"))', "must have no regular expression"),
        ("now.getHours(task_type) > 1", "must have the time zone of getHours written out"),
        ('now.getDate("Europe/" + "Berlin") > 1', "must have the time zone of getDate written out"),
        ('now.getHours("Europe/Nowhere") > 1', "must have a time zone such as Europe/Berlin in getHours, not Europe/"),
        ('now.getHours("file:/dev/zero") > 1', "must have a time zone such as Europe/Berlin in getHours, not file:"),
        ('now.getHours("../../etc/passwd") > 1', "must have a time zone such as Europe/Berlin"),
    ],
)
def test_what_is_no_condition_is_told_with_the_reason_and_the_place(text: str, problem: str) -> None:
    with pytest.raises(ConditionError) as raised:
        compile_condition(text)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("input_tokens / output_tokens > 1", "divide by zero"),
        ('required_capabilities[9] == "a"', "index=9 size=2"),
        ("9223372036854775807 + input_tokens > 0", "integer overflow"),
        ("timestamp(task_type) < now", "conversion failed"),
        ('{"a": 1}[task_type] == 1', "Key not found"),
    ],
)
def test_without_a_value_it_says_so(text: str, problem: str) -> None:
    with pytest.raises(NotEvaluatedError, match=problem):
        holds(text)


def _long(text: str) -> str:
    """Repeat up to the greatest length."""
    return text * (MAX_CHARS // len(text))


@pytest.mark.parametrize(
    "text",
    [
        *map(
            _long,
            ["(", "[", "{", "!", "-", '"', "r'''", ".", "a.", "1+", "true?", "[0]", "1<", "\N{GRINNING FACE}", "?:"],
        ),
        f"[{','.join('1' * 470)}].map(x, task_type + task_type) == []",
        f"[{','.join('1' * 470)}].exists_one(x, x == 2)",
        f"[task_type].map(a, {'+'.join('a' * 31)}).size() > 0",
        "&&".join([f"[{','.join('1' * 215)}].map(x, x) != []"] * 2),
        "||".join(["task_type == 'b'"] * 55),
        "||".join(["required_capabilities.exists(c, c == 'q')"] * 23),
        f"{{{','.join(f'{n}: {n}' for n in range(110))}}} == {{}}",
        "1e" + "9" * 990 + " > 0.0",
    ],
)
@pytest.mark.timeout(30)
def test_no_condition_hangs_the_server(text: str) -> None:
    """Whether it is refused or not, each takes some hundredths of a second at most."""
    assert len(text) <= MAX_CHARS
    with contextlib.suppress(ConditionError, NotEvaluatedError):
        holds(text, task_type="t" * 64)


@given(
    st.text(st.sampled_from("now.getHours()task_type==\"'![]{},:?|&+-*/%<>123 abc\\\n\0é"), max_size=60)
    | st.text(max_size=40)
)
def test_any_text_is_a_condition_or_refused_with_a_reason(text: str) -> None:
    with contextlib.suppress(NotEvaluatedError):
        try:
            condition = Condition(text)
        except ConditionError as error:
            problem = str(error)
        else:
            assert condition.holds(bind(SITUATION)) in {True, False}
            return
        assert problem.startswith("must ")


def test_only_a_condition_that_mentions_the_time_depends_on_it() -> None:
    assert Condition("now.getHours() > 5").uses_now
    assert not Condition('task_type == "chat"').uses_now


def test_a_server_without_rules_does_not_load_the_library() -> None:
    program = "import sys, llmrouter_server.app; sys.exit('cel_expr_python' in str([*sys.modules]))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
