"""What becomes of a request whose provider misbehaves: the rows that the tests check and docs/failover.md shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway import behaviour, faults, refusals, sse_faults
from gateway.answers import Answer, Usage
from gateway.behaviour import Fault, ok
from gateway.refusals import TOO_LONG, status
from gateway.sse_faults import ErrorEvent, Split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.provider_exchange import Exchange

STREAM, WHOLE = "stream", "whole"
BOTH = (STREAM, WHOLE)
WELL = (ok(),)
TOLD, GUESSED = "19 + 10 tokens", "estimated tokens"
JITTER_S = 0.09
"""The least pause before a second try without a Retry-After: 0.1 s by Envoy's clock, which is not the provider's."""
HUGE = 2_500_000


@dataclass(frozen=True, slots=True)
class Row:
    """How the providers behave, each with its last fault for ever, and what follows, in the words of the document.

    sees: what the client gets. attempts: the providers in the order of their requests. recorded: an entry for each
    attempt. pause_s: at least so long between two tries at one place; silence_s: between a place and the next.
    """

    a: tuple[Fault, ...]
    sees: str
    attempts: str
    recorded: tuple[str, ...]
    asked: tuple[str, ...] = BOTH
    b: tuple[Fault, ...] = WELL
    c: tuple[Fault, ...] = WELL
    pause_s: float = JITTER_S
    is_silent: bool = False
    """Whether a time-out passes before the next place is asked."""
    says: tuple[str, ...] = ()
    """What the error's message has in it, among others."""
    retry_after_s: int | None = None
    """What the client is told."""

    @property
    def is_about_silence(self) -> bool:
        """Whether it matters here how long a provider may say nothing."""
        return any("TIMEOUT" in each for each in self.recorded) or self.a in ((SLOW,), (LATE_RESET,))

    def __str__(self) -> str:
        places = (("A", self.a), ("B", self.b), ("C", self.c))
        return "; ".join(
            f"{letter} {', '.join(map(str, each))}" for letter, each in places if letter == "A" or each != WELL
        )


async def _nothing(_: Exchange) -> None:
    raise AssertionError("nobody can get here")


REFUSED = Fault("refused connection", "Takes no connections.", _nothing)
"""The tests let the provider go away."""

SLOW = ok(
    Answer(chunks=5, delay_s=0.6), name="slow", description="Needs longer for all of its answer than it may be silent."
)

LATE_RESET = replace(
    behaviour.late(1.2, faults.reset_before_headers()),
    name="late reset",
    description="Breaks the connection after more than half of the time that it has for the first byte.",
)


def _served(fault: Fault, tokens: str = TOLD, *, asked: tuple[str, ...] = BOTH) -> Row:
    return Row((fault,), "A's answer", "A", (f"A: {tokens}",), asked)


def _again(fault: Fault, failure: str, *, pause_s: float = JITTER_S) -> tuple[Row, Row]:
    """Tried once more at the same place: when it happens once, and when it happens for ever."""
    told = f"A: {failure}"
    return (
        Row((fault, ok()), "A's answer", "A A", (told, f"A: {TOLD}"), pause_s=pause_s),
        Row((fault,), "B's answer", "A A B", (told, told, f"B: {TOLD}"), pause_s=pause_s),
    )


def _next(fault: Fault, failure: str, *, is_silent: bool = False, asked: tuple[str, ...] = BOTH) -> Row:
    """Left for the next one."""
    return Row((fault,), "B's answer", "A B", (f"A: {failure}", f"B: {TOLD}"), asked, is_silent=is_silent)


def _back(fault: Fault, code: int) -> Row:
    """Handed to the client as the provider wrote it."""
    return Row((fault,), f"A's {code}", "A", ("A: CALLER",))


def _everywhere(fault: Fault, sees: str, attempts: str, recorded: str, **more: object) -> Row:
    """The same at each of the three."""
    row = Row((fault,), sees, attempts, tuple(recorded.split("; ")), b=(fault,), c=(fault,))
    return replace(row, **more)  # type: ignore[arg-type]


def _cut(fault: Fault, sees: str, failure: str, *, asked: tuple[str, ...] = (STREAM,)) -> Row:
    """The client has the beginning, so nobody else is asked."""
    return Row((fault,), sees, "A", (f"A: {failure}, {GUESSED}",), asked)


SERVER, CONNECT, TIMEOUT = "SERVER_ERROR", "CONNECT", "TIMEOUT"
LIMITED, KEY, CALLER = "RATE_LIMITED", "UNAUTHORIZED", "CALLER"
ERROR_EVENT = "A's stream, then an error event"
BROKEN = "A's answer, broken off"

ROWS: Mapping[str, tuple[Row, ...]] = {
    "Answers that are served": (
        *map(
            _served, (ok(), *(behaviour.usage_like(usage) for usage in (Usage.ALWAYS, Usage.WITH_FINISH, Usage.GROQ)))
        ),
        _served(behaviour.no_usage(), GUESSED),
        *map(
            _served,
            (
                behaviour.slow_first_token(0.5),
                behaviour.late(0.5, ok()),
                behaviour.informed(100, ok()),
                behaviour.informed(103, ok()),
                faults.zipped(),
                faults.huge(HUGE),
            ),
        ),
        *(
            _served(fault, asked=(STREAM,))
            for fault in (
                SLOW,
                *(sse_faults.split(where) for where in Split),
                sse_faults.at_once(),
                sse_faults.line_ends(b"\r\n"),
                sse_faults.line_ends(b"\r"),
                sse_faults.comments(),
                sse_faults.more_fields(),
                sse_faults.no_space(),
                sse_faults.bad_event(),
                faults.unasked_stream(),
            )
        ),
        _served(faults.no_stream(), asked=(WHOLE,)),
        Row((faults.no_done(),), "A's answer, without [DONE]", "A", (f"A: {TOLD}",), (STREAM,)),
    ),
    "Gone in a moment, perhaps: once more at the same provider, then the next": (
        *(
            row
            for fault in (status(500), refusals.bad_gateway(), refusals.unavailable(), refusals.overloaded())
            for row in _again(fault, SERVER)
        ),
        *_again(refusals.unavailable(1), SERVER, pause_s=1),
        *_again(refusals.rate_limited("1"), LIMITED, pause_s=1),
        *(
            row
            for fault in (
                faults.reset_before_headers(),
                faults.hang_up_before_headers(),
                faults.no_http(),
                faults.two_lengths(),
                faults.huge_header(),
                faults.many_headers(),
            )
            for row in _again(fault, CONNECT)
        ),
        Row((REFUSED,), "B's answer", "B", ("A: CONNECT", "A: CONNECT", f"B: {TOLD}")),
        Row(
            (status(500), faults.silent()),
            "B's answer",
            "A A B",
            ("A: SERVER_ERROR", "A: TIMEOUT", f"B: {TOLD}"),
        ),
        Row(
            (status(500), refusals.unauthorized()),
            "B's answer",
            "A A B",
            ("A: SERVER_ERROR", "A: UNAUTHORIZED", f"B: {TOLD}"),
        ),
        Row(
            (faults.reset_before_headers(), refusals.too_long()),
            "B's answer",
            "A A B",
            ("A: CONNECT", "A: CALLER", f"B: {TOLD}"),
        ),
        Row(
            (refusals.rate_limited("1"), status(500)),
            "B's answer",
            "A A B",
            ("A: RATE_LIMITED", "A: SERVER_ERROR", f"B: {TOLD}"),
            pause_s=1,
        ),
        Row((status(500), refusals.content_filter()), "A's 400", "A A", ("A: SERVER_ERROR", "A: CALLER")),
    ),
    "What breaks in the middle of an answer in one piece: that is handed on only when it is all there": (
        *(
            replace(row, asked=(WHOLE,))
            for fault in (faults.reset_after(0), faults.reset_after(3), faults.bad_chunk())
            for row in _again(fault, CONNECT)
        ),
        _next(faults.stalled(0), TIMEOUT, is_silent=True, asked=(WHOLE,)),
        _next(faults.stalled(3), TIMEOUT, is_silent=True, asked=(WHOLE,)),
        _next(faults.cut(3), SERVER, asked=(WHOLE,)),
        _next(faults.cut_at_eof(3), SERVER, asked=(WHOLE,)),
    ),
    "Not gone in a moment: the next provider at once": (
        _next(refusals.rate_limited(), LIMITED),
        _next(refusals.rate_limited("7"), LIMITED),
        _next(refusals.rate_limited_until(7), LIMITED),
        _next(refusals.no_quota(), LIMITED),
        _next(refusals.unavailable(7), SERVER),
        _next(behaviour.for_a_while(60, refusals.unavailable(7), ok()), SERVER),
        _next(refusals.unauthorized(), KEY),
        _next(status(402), KEY),
        _next(status(403), KEY),
        _next(refusals.no_such_model(), CALLER),
        _next(status(408), TIMEOUT),
        _next(status(504), TIMEOUT),
        _next(faults.silent(), TIMEOUT, is_silent=True),
        _next(LATE_RESET, CONNECT),
        _next(SLOW, TIMEOUT, is_silent=True, asked=(WHOLE,)),
        _next(faults.html(), SERVER),
        _next(faults.empty(), SERVER),
        _next(faults.redirect(), SERVER),
        _next(faults.redirect(code=307), SERVER),
        _next(faults.error_in_200(), SERVER),
        _next(faults.no_stream(), SERVER, asked=(STREAM,)),
        _next(faults.unasked_stream(), SERVER, asked=(WHOLE,)),
    ),
    "Too long a prompt: the next with a larger context": tuple(
        _next(refusals.too_long(whose), CALLER) for whose in TOO_LONG
    ),
    "The request's own fault: back as the provider wrote it": (
        _back(refusals.content_filter(), 400),
        _back(refusals.bad_request(), 400),
        _back(refusals.too_large(), 413),
        _back(status(422), 422),
    ),
    "What breaks when the client has the beginning already": (
        _cut(faults.reset_after(0), BROKEN, SERVER),
        _cut(faults.reset_after(3), BROKEN, SERVER),
        _cut(faults.stalled(0), BROKEN, TIMEOUT),
        _cut(faults.stalled(3), BROKEN, TIMEOUT),
        _cut(replace(faults.stalled(5, Answer(chunks=8, delay_s=0.6)), name="stalled late"), BROKEN, TIMEOUT),
        _cut(faults.bad_chunk(), BROKEN, SERVER),
        _cut(faults.cut(3), ERROR_EVENT, SERVER),
        _cut(faults.cut_at_eof(3), ERROR_EVENT, SERVER),
        *(_cut(sse_faults.error_event(style=style), ERROR_EVENT, SERVER) for style in ErrorEvent),
        _cut(replace(sse_faults.error_event(done=True), name="error event, then [DONE]"), ERROR_EVENT, SERVER),
    ),
    "All fail": (
        _everywhere(
            status(500),
            "502 providers_failed",
            "A A B B C C",
            "A: SERVER_ERROR; A: SERVER_ERROR; B: SERVER_ERROR; B: SERVER_ERROR; C: SERVER_ERROR; C: SERVER_ERROR",
            says=("answered with status 500",),
        ),
        _everywhere(
            faults.reset_before_headers(),
            "502 providers_failed",
            "A A B B C C",
            "A: CONNECT; A: CONNECT; B: CONNECT; B: CONNECT; C: CONNECT; C: CONNECT",
            says=("could not be reached or broke the connection off",),
        ),
        _everywhere(
            REFUSED,
            "502 providers_failed",
            "",
            "A: CONNECT; A: CONNECT; B: CONNECT; B: CONNECT; C: CONNECT; C: CONNECT",
            says=("could not be reached or broke the connection off",),
        ),
        _everywhere(
            faults.silent(),
            "504 providers_timed_out",
            "A B C",
            "A: TIMEOUT; B: TIMEOUT; C: TIMEOUT",
            is_silent=True,
            says=("did not answer in time",),
        ),
        _everywhere(
            refusals.rate_limited(),
            "429 providers_rate_limited",
            "A B C",
            "A: RATE_LIMITED; B: RATE_LIMITED; C: RATE_LIMITED",
            says=("takes no more requests for now",),
            retry_after_s=1,
        ),
        _everywhere(
            refusals.rate_limited("7"),
            "429 providers_rate_limited",
            "A B C",
            "A: RATE_LIMITED; B: RATE_LIMITED; C: RATE_LIMITED",
            says=("takes no more requests for now",),
            retry_after_s=7,
        ),
        _everywhere(
            refusals.unauthorized(),
            "502 providers_failed",
            "A B C",
            "A: UNAUTHORIZED; B: UNAUTHORIZED; C: UNAUTHORIZED",
            says=("refused the key",),
        ),
        _everywhere(
            refusals.no_such_model(),
            "502 providers_failed",
            "A B C",
            "A: CALLER; B: CALLER; C: CALLER",
            says=("answered with status 404",),
        ),
        _everywhere(
            faults.html(),
            "502 providers_failed",
            "A B C",
            "A: SERVER_ERROR; B: SERVER_ERROR; C: SERVER_ERROR",
            says=("gave an answer that is none",),
        ),
        _everywhere(refusals.too_long(), "C's 400", "A B C", "A: CALLER; B: CALLER; C: CALLER"),
        Row(
            (faults.silent(),),
            "502 providers_failed",
            "A B B C",
            ("A: TIMEOUT", "B: SERVER_ERROR", "B: SERVER_ERROR", "C: RATE_LIMITED"),
            b=(refusals.unavailable(),),
            c=(refusals.rate_limited(),),
            says=("did not answer in time", "answered with status 503", "takes no more requests for now"),
        ),
        Row(
            (status(500),),
            "C's answer",
            "A A B C",
            ("A: SERVER_ERROR", "A: SERVER_ERROR", "B: CALLER", f"C: {TOLD}"),
            b=(refusals.too_long(),),
        ),
        Row(
            (refusals.too_long(),),
            "C's answer",
            "A B C",
            ("A: CALLER", "B: TIMEOUT", f"C: {TOLD}"),
            b=(faults.silent(),),
        ),
        Row(
            (refusals.unauthorized(),),
            "B's 400",
            "A B",
            ("A: UNAUTHORIZED", "B: CALLER"),
            b=(refusals.content_filter(),),
        ),
    ),
}
"""By what the document calls them."""
