"""What becomes of a request whose provider speaks HTTP/2: what HTTP/1.1 has too comes out the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes

from gateway import answers, faults, refusals, sse_faults
from gateway.answers import OK
from gateway.behaviour import PAUSE_S, Fault, ok
from gateway.failover_rows import BROKEN, CONNECT, GUESSED, HUGE, ROWS, SERVER, STREAM, TOLD, WHOLE, Row
from gateway.provider_http2 import Http2Exchange
from gateway.refusals import status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.provider_exchange import Exchange

AS_OVER_HTTP_1: tuple[Fault, ...] = (
    ok(),
    faults.huge(HUGE),
    faults.zipped(),
    faults.no_done(),
    status(500),
    refusals.rate_limited(),
    refusals.too_long(),
    refusals.content_filter(),
    faults.reset_before_headers(),
    faults.hang_up_before_headers(),
    faults.many_headers(),
    faults.reset_after(0),
    faults.reset_after(3),
    faults.cut(3),
    faults.stalled(3),
    faults.silent(),
    sse_faults.error_event(),
)
"""Their rows are those of HTTP/1.1: the ones in which one provider behaves so for ever."""


def _stream(exchange: Exchange) -> Http2Exchange:
    assert isinstance(exchange, Http2Exchange)
    return exchange


def reset_after(parts: int, error: ErrorCodes) -> Fault:
    """Break the stream after so many parts, 0 for the headers; negative: instead of an answer."""

    async def act(exchange: Exchange) -> None:
        if parts >= 0:
            await _begin(exchange, parts)
        _stream(exchange).reset(error)

    where = f"after {parts} parts" if parts >= 0 else "before headers"
    return Fault(f"RST_STREAM {error.name} {where}", "Breaks the stream, and not the connection.", act)


def go_away(error: ErrorCodes = ErrorCodes.NO_ERROR) -> Fault:
    """In the middle of an answer. Without an error it is finished all the same; else the connection ends."""

    async def act(exchange: Exchange) -> None:
        said = await _begin(exchange, 3)
        await _stream(exchange).go_away(error)
        if error is not ErrorCodes.NO_ERROR:
            await exchange.hang_up()
            return
        for part in OK.parts(exchange.seen)[said:]:
            await exchange.body(part)
        await exchange.end()

    if error is ErrorCodes.NO_ERROR:
        return Fault("GOAWAY", "Takes no more requests on the connection, and finishes those that it has.", act)
    return Fault(f"GOAWAY {error.name}", "Ends the connection in the middle of the answer.", act)


def go_away_from_this() -> Fault:
    async def act(exchange: Exchange) -> None:
        await _stream(exchange).go_away(is_taken=False)
        await exchange.hang_up()

    return Fault("GOAWAY from this too", "Takes no more requests on the connection, not even the one it was sent.", act)


async def _begin(exchange: Exchange, parts: int) -> int:
    """Send the headers and so many parts, and give the client time to read them; return how many."""
    whole = OK.parts(exchange.seen)
    is_stream = exchange.seen.wants_stream
    content_type = answers.SSE if is_stream else "application/json"
    await exchange.head(200, content_type=content_type, length=None if is_stream else sum(map(len, whole)))
    for part in whole[:parts]:
        await exchange.body(part)
    await asyncio.sleep(PAUSE_S)
    return len(whole[:parts])


def _broken_off(fault: Fault) -> tuple[Row, Row]:
    return (
        Row((fault,), BROKEN, "A", (f"A: {SERVER}, {GUESSED}",), (STREAM,)),
        Row((fault,), "B's answer", "A A B", (f"A: {CONNECT}", f"A: {CONNECT}", f"B: {TOLD}"), (WHOLE,)),
    )


def _refused(fault: Fault) -> tuple[Row, Row]:
    told = f"A: {CONNECT}"
    return (
        Row((fault, ok()), "A's answer", "A A", (told, f"A: {TOLD}")),
        Row((fault,), "B's answer", "A A B", (told, told, f"B: {TOLD}")),
    )


ONLY_HTTP_2: tuple[Row, ...] = (
    Row((go_away(),), "A's answer", "A", (f"A: {TOLD}",)),
    *_refused(go_away_from_this()),
    *_refused(reset_after(-1, ErrorCodes.REFUSED_STREAM)),
    *_broken_off(reset_after(3, ErrorCodes.NO_ERROR)),
    *_broken_off(reset_after(3, ErrorCodes.CANCEL)),
    *_broken_off(go_away(ErrorCodes.INTERNAL_ERROR)),
)
HTTP_2_ROWS: tuple[Row, ...] = (
    *(
        row
        for fault in AS_OVER_HTTP_1
        for rows in ROWS.values()
        for row in rows
        if row.a == (fault,) and row.c != row.a and row.b == (ok(),)
    ),
    *ONLY_HTTP_2,
)
HTTP_2_SCENARIOS: Mapping[str, tuple[Row, str]] = {
    f"{row}, {asked}": (row, asked) for row in HTTP_2_ROWS for asked in row.asked
}
