"""What an error of a provider's call means: whose fault it is, and whether the next model is to be tried.

The errors of OpenAI's and Anthropic's clients, httpx, requests, aiohttp and the standard library are told apart by
their status and by the names of their classes, so that none of these packages is needed. The next model is tried where
the gateway would go on to it; a 402 is CALLER here, and UNAUTHORIZED there.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

from llmrouter.v2.usage_pb2 import AttemptFailure

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(NamedTuple):
    """What an error means."""

    failure: AttemptFailure.ValueType
    """What to record; ATTEMPT_FAILURE_UNSPECIFIED: nobody's fault, or not known."""
    try_next: bool
    """Whether another model may do better. Otherwise the error goes to the caller as it is."""


UNKNOWN = Verdict(AttemptFailure.ATTEMPT_FAILURE_UNSPECIFIED, try_next=False)
"""A mistake in the program, most likely: another model would meet it too."""

_BY_STATUS: Mapping[int, Verdict] = {
    400: Verdict(AttemptFailure.ATTEMPT_FAILURE_CALLER, try_next=False),
    401: Verdict(AttemptFailure.ATTEMPT_FAILURE_UNAUTHORIZED, try_next=True),
    403: Verdict(AttemptFailure.ATTEMPT_FAILURE_UNAUTHORIZED, try_next=True),
    408: Verdict(AttemptFailure.ATTEMPT_FAILURE_TIMEOUT, try_next=True),
    413: Verdict(AttemptFailure.ATTEMPT_FAILURE_CALLER, try_next=False),
    422: Verdict(AttemptFailure.ATTEMPT_FAILURE_CALLER, try_next=False),
    429: Verdict(AttemptFailure.ATTEMPT_FAILURE_RATE_LIMITED, try_next=True),
    504: Verdict(AttemptFailure.ATTEMPT_FAILURE_TIMEOUT, try_next=True),
}
_OTHER_4XX = Verdict(AttemptFailure.ATTEMPT_FAILURE_CALLER, try_next=True)
"""No money left, no such model: a matter of this provider."""
_SERVER_ERROR = Verdict(AttemptFailure.ATTEMPT_FAILURE_SERVER_ERROR, try_next=True)
_TIMEOUT = Verdict(AttemptFailure.ATTEMPT_FAILURE_TIMEOUT, try_next=True)
_CONNECT = Verdict(AttemptFailure.ATTEMPT_FAILURE_CONNECT, try_next=True)
_TOO_LONG = Verdict(AttemptFailure.ATTEMPT_FAILURE_CALLER, try_next=True)
_TOO_LONG_CODE = "context_length_exceeded"
_TOO_LONG_WORDS = (
    _TOO_LONG_CODE,
    "maximum context length",
    "context window",
    "context length",
    "prompt is too long",
    "context limit",
    "max_new_tokens",
    "too many tokens",
    "reduce the length of the messages",
)
"""How providers say it, in lower case; those by which the gateway knows it."""

_CONNECTION_ERRORS = (ConnectionError, socket.gaierror, ssl.SSLError, http.client.HTTPException)
_CONNECTION_NAMES = frozenset(
    {
        "APIConnectionError",
        "ChunkedEncodingError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectError",
        "ConnectionError",
        "NetworkError",
        "ProtocolError",
    }
)
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_PASSED_ON = frozenset({"model_not_found", "no_eligible_model", _TOO_LONG_CODE})
"""Codes of the gateway that are about the model."""


def of_provider(error: Exception) -> Verdict:
    """Judge what a provider's call raised.

    To the next model go: no connection, no answer in time, every status but 400, 413 and 422, and a prompt that is too
    long for this one. A 400, 413 or 422 is about the request, and what is no error of a call at all is a mistake in the
    program: both end the walk.

    >>> of_provider(TimeoutError())
    Verdict(failure=2, try_next=True)
    >>> of_provider(KeyError("typo"))
    Verdict(failure=0, try_next=False)
    """
    status = status_of(error)
    if status is not None:
        if status in (400, 413, 422) and _is_too_long(error):
            return _TOO_LONG
        return _BY_STATUS.get(status) or (_OTHER_4XX if 400 <= status < 500 else _SERVER_ERROR)  # noqa: PLR2004
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        return _TIMEOUT
    unreachable = isinstance(error, OSError) and error.errno in _UNREACHABLE
    if isinstance(error, _CONNECTION_ERRORS) or names & _CONNECTION_NAMES or unreachable:
        return _CONNECT
    return UNKNOWN


def of_gateway(error: Exception) -> Verdict:
    """Judge what a call of llmrouter's own gateway raised, which has tried the model at all its providers already.

    To the next model goes what is about the model: all its providers failed, or it cannot serve this request. Not what
    would be the same for each: a refused token, a budget that is used up, a gateway that cannot be reached.
    """
    verdict, code = of_provider(error), getattr(error, "code", None)
    if isinstance(code, str):
        return verdict._replace(try_next=code.startswith("providers_") or code in _PASSED_ON)
    return verdict._replace(try_next=status_of(error) in (502, 504))


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error tells of, if any."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:  # noqa: PLR2004
                return value
    return None


def _is_too_long(error: Exception) -> bool:
    said = f"{getattr(error, 'code', None)} {getattr(error, 'body', None)} {error}".lower()
    return any(words in said for words in _TOO_LONG_WORDS)
