"""What became of an attempt, judged from what Envoy's Lua noted of it and from the flags of Envoy's access log.

An attempt is noted as an HTTP status, or as one of these words: `silent` (no answer in time), `broken` (no connection,
or reset before an answer), `strange` (a success that is none: another content type, a redirect), `too_long` (the prompt
does not fit the model), `open` (without an answer when the request ended).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmrouter_server.usage.record import Failure

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

# Envoy's short names: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage
HUNG_UP = frozenset({"DC", "DR", "DPE"})
TIMED_OUT = frozenset({"UT", "SI", "DT", "UMSDR"})
NO_CONNECTION = frozenset({"UF", "UH", "DF"})
BROKEN_OFF = frozenset({"UC", "UR", "LR"})
GARBLED = frozenset({"UPE"})
COMPLETE = frozenset({"done", "finished"})
"""How a stream ends well."""


class Verdict(NamedTuple):
    """How an attempt is recorded."""

    message: str | None
    """What went wrong, in our own words; None: nothing."""
    failure: Failure | None = None
    """None: it succeeded, or nobody knows whose fault it was."""
    has_begun: bool = False
    """Whether the provider had begun to answer, and so to count tokens."""


GOOD = Verdict(None, has_begun=True)
GIVEN_UP = Verdict("the answer was given up for another one", Failure.SERVER_ERROR, has_begun=True)
CUT = Verdict("the answer ended before it was complete", Failure.SERVER_ERROR, has_begun=True)
STALLED = Verdict("the answer took too long or fell silent", Failure.TIMEOUT, has_begun=True)
LEFT = Verdict("the client hung up", Failure.CANCELLED, has_begun=True)
NO_END = Verdict("the end of the answer was not seen", has_begun=True)

SILENT = Verdict("no answer in time", Failure.TIMEOUT)
BROKEN = Verdict("no connection, or it was lost before an answer", Failure.CONNECT)
LEFT_BEFORE = Verdict("the client hung up before there was an answer", Failure.CANCELLED)
NOT_ANSWERED = Verdict("there was no answer", Failure.SERVER_ERROR)
WORDS = {
    "silent": SILENT,
    "broken": BROKEN,
    "strange": Verdict("the answer was not what was asked for", Failure.SERVER_ERROR),
    "too_long": Verdict("the prompt is too long for the model", Failure.CALLER),
}


def is_outcome(text: str) -> bool:
    """Tell whether this is how an attempt may be noted."""
    return text in WORDS or text == "open" or (len(text) == 3 and text.isascii() and text.isdigit())  # noqa: PLR2004


def is_answer(outcome: str) -> bool:
    """Tell whether the provider began to answer with success."""
    return outcome.isdigit() and 200 <= int(outcome) < 300  # noqa: PLR2004


def of_failure(outcome: str) -> Verdict:
    """Judge an attempt that failed before its answer began, by a status or a word other than `open`."""
    if outcome in WORDS:
        return WORDS[outcome]
    status, message = int(outcome), f"the provider answered with status {outcome}"
    if status in (401, 402, 403):  # also a key whose account does not pay is of no use for now
        return Verdict(message, Failure.UNAUTHORIZED)
    if status == 429:  # noqa: PLR2004
        return Verdict(message, Failure.RATE_LIMITED)
    if status in (408, 504):
        return Verdict(message, Failure.TIMEOUT)
    return Verdict(message, Failure.CALLER if 400 <= status < 500 else Failure.SERVER_ERROR)  # noqa: PLR2004


def of_open(flags: AbstractSet[str], status: int) -> Verdict:
    """Judge the last attempt, which had not been answered when the request ended with these flags and this status."""
    if flags & TIMED_OUT or status in (408, 504):
        return SILENT
    if flags & HUNG_UP:
        return LEFT_BEFORE
    if flags & (NO_CONNECTION | BROKEN_OFF):
        return BROKEN
    return NOT_ANSWERED


def of_answer(
    flags: AbstractSet[str], status: int, *, is_stream: bool, stream_end: str | None, was_read: bool
) -> Verdict:
    """Judge the last attempt, whose answer began, by how the request ended.

    `was_read`: whether, as far as anything came of a stream, it was noted how far it had come.
    """
    if stream_end in COMPLETE:
        return GOOD  # whatever came after that
    if flags & TIMED_OUT:
        return STALLED
    if stream_end is not None:
        return CUT
    if flags & HUNG_UP:
        return LEFT
    if flags & (BROKEN_OFF | GARBLED) or not is_answer(str(status)):
        return CUT
    # Envoy has no flag for a stream that it cuts off because it took too long in all.
    return GOOD if not is_stream else STALLED if was_read else NO_END
