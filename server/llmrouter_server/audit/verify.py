"""The command `audit verify`: looks at every row of the audit of readings, and says what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrouter_server.audit import store
from llmrouter_server.audit.key_reads import ChainCheck, month_name
from llmrouter_server.runtime import command

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

PROGRESS_EVERY = 1000


async def verify(
    database_url: str,
    say: Callable[[str], None],
    *,
    month: date | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Check the chain of every month, or of one, and return how many problems there are.

    `say` is told each problem, and for each month its rows and the hash of its last one: noted elsewhere, it shows
    later whether the whole month was written anew. `progress` is told every thousand rows how many of how many are
    done. The server may go on writing meanwhile. Raises CommandError when the database cannot be read.
    """
    problems = done = 0
    async with command.connect(database_url) as connection:
        found = await store.months(connection, month)
        total = sum(found.values())
        for each in found:
            check = ChainCheck(each)

            def advanced(rows: int, before: int = done) -> None:
                progress(before + rows, max(total, before + rows))

            problems += await _verify_month(connection, check, say, advanced)
            done += check.rows
            say(f"{month_name(each)}: {check.rows} rows, head {check.last.hash.hex()} at row {check.last.sequence}")
    if not found:
        say("no reading is recorded" + (f" for {month_name(month)}" if month else ""))
    return problems


async def _verify_month(
    connection: Any,  # noqa: ANN401 - asyncpg has no types
    check: ChainCheck,
    say: Callable[[str], None],
    advanced: Callable[[int], None],
) -> int:
    problems = 0
    # One view of head and rows, whatever is written meanwhile.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        head = await store.read_head(connection, check.month)
        async for row in store.read_month(connection, check.month):
            for problem in check.row(row):
                say(problem)
                problems += 1
            if check.rows % PROGRESS_EVERY == 0:
                advanced(check.rows)
    for problem in check.end(head):
        say(problem)
        problems += 1
    advanced(check.rows)
    return problems
