"""docs/failover.md, made of the rows that the tests check."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from gateway.chat_stack import REST_S, SILENCE_S
from gateway.failover_rows import BOTH, JITTER_S, ROWS, STREAM, WELL, WHOLE
from gateway.http2_rows import AS_OVER_HTTP_1, ONLY_HTTP_2
from gateway.outages import LEFT_ALONE, OUTAGES, SERVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.behaviour import Fault
    from gateway.failover_rows import Row
    from gateway.outages import Fate, Outage

INTRODUCTION = """\
# When a provider fails

What becomes of a chat request whose provider misbehaves. Every line of the tables is a test through the real Envoy,
server and Postgres, with real HTTP servers that behave as it says. This document is made of the same lines, by
`UPDATE_DOCS=1 .venv/bin/pytest tests/gateway/test_failover.py`. `envoy/README.md` tells how it works.

- A decision names up to four candidates, the best first. Here they are A, B and C, each of a provider of its own, with
  a context that grows from A to C.
- What may be gone in a moment (500, 502, 503, 529, a connection that soon breaks) is tried once more at the same place,
  after a random 0.1 to 0.3 s; 429 and 503 after their `Retry-After` and up to a fifth more, if that is short. Nobody
  gets a third request.
- Silence is waited for once at each provider. A refused key, a missing model, an answer that is none, a 429 without a
  short `Retry-After`: the next candidate at once.
- A prompt that is too long goes to the next candidate with a larger context. Any other 400, 413 and 422 is about the
  request, and goes back as the provider wrote it, without the key.
- An answer in one piece is handed on when all of it is there: whatever breaks before costs the client nothing but time.
  A stream is handed on as it comes. Once it has begun nobody else is asked; when it breaks, that is to be seen: an
  `error` event or a connection that breaks off, and never `[DONE]`.
- Each attempt is recorded with why it failed. It counts for its provider's health unless the request or the key is to
  blame. What a broken answer has used is estimated and marked as such. At the end no money is held any more.
- Who fails three times in a row is left alone for a minute (`PROVIDER_REST_SECONDS`), and asked by nobody. Then one
  request tries it, the others go elsewhere; a minute after that the next one, until three in a row were good.
- When nobody is left, the error is the gateway's own and says what each of them did: 504 `providers_timed_out` when all
  were silent, 429 `providers_rate_limited` with the shortest `Retry-After` when all had too much to do, otherwise 502
  `providers_failed`.

*Requests* are those that reached a provider, in order, with the least time between two at the same one. *Recorded* has
an entry for each attempt, also for one that found no connection. Every answer is charged by what is recorded of it. For
these tests {silence_s} seconds are silence, and {rest_s} are the minute of rest.
"""
WIDTH, NO_BREAK = 120, "\xa0"
HEAD = """\
| the provider's behaviour | asked for | the client gets | requests | recorded |
|---|---|---|---|---|"""

OUTAGE_HEAD = """\
## Down for a while, then healthy: left alone, probed by one request at a time, trusted again

| the provider is | asked for | which requests | the client gets | requests | recorded |
|---|---|---|---|---|---|"""


def document() -> str:
    """Return the document as Markdown."""
    introduction = INTRODUCTION.format(silence_s=SILENCE_S, rest_s=REST_S)
    outages = (OUTAGE_HEAD, *(line for outage in OUTAGES for line in _course(outage)), "")
    return "\n".join((introduction, *_tables(), *outages, *_over_http_2(), "## The behaviours", "", *_behaviours(), ""))


def _tables() -> Iterator[str]:
    for title, rows in ROWS.items():
        yield from (f"## {title}", "", HEAD, *map(_line, rows), "")


def _over_http_2() -> Iterator[str]:
    whole = [f"`{fault}`".replace(" ", NO_BREAK) for fault in AS_OVER_HTTP_1]
    lines = wrap(f"As over HTTP/1.1: {', '.join(whole)}.", WIDTH, break_on_hyphens=False)
    yield from ("## Over HTTP/2, with TLS", "", *(line.replace(NO_BREAK, " ") for line in lines), "")
    yield from ("And what only HTTP/2 has:", "", HEAD, *map(_line, ONLY_HTTP_2), "")


def _line(row: Row) -> str:
    asked = _asked(row.asked)
    return _cells(_behaviour(row), asked, row.sees, _requests(row.attempts, row.pause_s), _counted(row.recorded))


def _course(outage: Outage) -> Iterator[str]:
    def line(when: str, which: str, fate: Fate, *, is_probe: bool = False) -> str:
        rested = f"≥ {REST_S} s, " if is_probe and "A" in fate.requests else ""
        requests = rested + _requests(fate.requests, JITTER_S)
        return _cells(when, asked, which, fate.sees, requests, _counted(fate.recorded))

    asked = _asked(outage.asked)
    yield line(f"`{outage.down}`", "each, until 3 attempts in a row have failed", outage.lost)
    yield line(f"`{outage.down}`, resting", "all", LEFT_ALONE)
    yield line(f"`{outage.down}`, after the rest", "one, which tries it", outage.lost, is_probe=True)
    yield line(f"`{outage.down}`, after the rest", "those meanwhile, and all in another rest", LEFT_ALONE)
    yield line("`ok`, after the rest", "one, three times with a rest before each", SERVED, is_probe=True)
    yield line("`ok`, after the rest", "those meanwhile, and all in the rests", LEFT_ALONE)
    yield line("`ok`, after three good answers", "all", SERVED)


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _asked(kinds: tuple[str, ...]) -> str:
    return {(STREAM,): "a stream", (WHOLE,): "one piece", BOTH: "either"}[kinds]


def _behaviour(row: Row) -> str:
    if row.a == row.b == row.c != WELL:
        return f"all: {_script(row.a)}"
    others = [f"{letter}: {_script(each)}" for letter, each in (("B", row.b), ("C", row.c)) if each != WELL]
    return "; ".join((f"A: {_script(row.a)}" if others else _script(row.a), *others))


def _script(faults: tuple[Fault, ...]) -> str:
    match faults:
        case (first, last) if (last,) == WELL:
            return f"`{first}` once"
        case (first, last):
            return f"`{first}`, then `{last}`"
    return f"`{faults[0]}`"


def _requests(attempts: str, pause_s: float) -> str:
    said: list[str] = []
    for before, letter in zip(["", *attempts.split()], attempts.split(), strict=False):
        said.append(f"≥ {max(pause_s, 0.1):g} s, {letter}" if letter == before else letter)
    return ", ".join(said) or "none"


def _counted(entries: Iterable[str]) -> str:
    """Write entries that follow on each other and are the same as one."""
    counted: list[tuple[str, int]] = []
    for entry in entries:
        if counted and counted[-1][0] == entry:
            counted[-1] = (entry, counted[-1][1] + 1)
        else:
            counted.append((entry, 1))
    return "; ".join(entry if number == 1 else f"{entry}, {number} times" for entry, number in counted)


def _behaviours() -> Iterator[str]:
    found = {
        fault.name: fault.description
        for rows in (*ROWS.values(), ONLY_HTTP_2)
        for row in rows
        for fault in (*row.a, *row.b, *row.c)
    }
    yield from ("| behaviour | what the provider does |", "|---|---|")
    yield from (f"| `{name}` | {found[name]} |" for name in sorted(found))
