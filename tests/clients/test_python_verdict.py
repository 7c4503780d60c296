"""How the Python client judges what a provider's call raised, whatever library made the call."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
import urllib.error
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmrouter import AttemptFailure, Usage, verdict
from llmrouter.attempt import usage_of


class Status(Exception):  # noqa: N818 - the tests read as sentences
    """As of OpenAI's and Anthropic's clients."""

    def __init__(self, status_code: int, code: str | None = None) -> None:
        super().__init__(status_code)
        self.status_code, self.code = status_code, code


class Response(Exception):  # noqa: N818
    """As of httpx and requests."""

    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.response = SimpleNamespace(status_code=status_code)


class ReadTimeout(Exception):  # noqa: N818 - its name is what tells it
    """As of httpx."""


class ConnectError(Exception):
    """As of httpx."""


class ChunkedEncodingError(OSError):
    """As of requests."""


class ClientPayloadError(Exception):
    """As of aiohttp."""


@pytest.mark.parametrize(
    ("error", "failure", "try_next"),
    [
        (Status(400), "CALLER", False),
        (Status(400, "context_length_exceeded"), "CALLER", True),
        (Status(401), "UNAUTHORIZED", True),
        (Status(402), "CALLER", True),
        (Status(403), "UNAUTHORIZED", True),
        (Status(404), "CALLER", True),
        (Status(408), "TIMEOUT", True),
        (Status(413), "CALLER", False),
        (Status(422), "CALLER", False),
        (Status(429), "RATE_LIMITED", True),
        (Status(500), "SERVER_ERROR", True),
        (Status(504), "TIMEOUT", True),
        (Status(529), "SERVER_ERROR", True),
        (Status(200), "SERVER_ERROR", True),
        (Response(503), "SERVER_ERROR", True),
        (Response(400), "CALLER", False),
        (urllib.error.HTTPError("http://x", 429, "", Message(), None), "RATE_LIMITED", True),
        (TimeoutError(), "TIMEOUT", True),
        (ReadTimeout(), "TIMEOUT", True),
        (ConnectError(), "CONNECT", True),
        (ChunkedEncodingError(), "CONNECT", True),
        (ClientPayloadError(), "CONNECT", True),
        (ConnectionResetError(), "CONNECT", True),
        (socket.gaierror(), "CONNECT", True),
        (ssl.SSLError(), "CONNECT", True),
        (http.client.IncompleteRead(b""), "CONNECT", True),
        (OSError(errno.EHOSTUNREACH, "no route"), "CONNECT", True),
        (FileNotFoundError(errno.ENOENT, "a mistake"), "UNSPECIFIED", False),
        (ValueError(), "UNSPECIFIED", False),
    ],
)
def test_an_error_has_a_fault_and_says_whether_another_may_do_better(
    error: Exception, failure: str, try_next: bool
) -> None:
    expected = AttemptFailure.Value(f"ATTEMPT_FAILURE_{failure}")
    assert verdict.of_provider(error) == verdict.Verdict(expected, try_next)


def test_the_words_of_a_prompt_that_is_too_long_are_the_gateways() -> None:
    lua = (Path(__file__).parents[2] / "envoy" / "gateway_attempt.lua").read_text(encoding="utf-8")
    listed = lua.partition("local TOO_LONG = {")[2].partition("}")[0]
    assert tuple(re.findall(r'"(.+?)"', listed)) == verdict._TOO_LONG_WORDS


def test_other_refusals_in_similar_words_are_about_the_request() -> None:
    error = Status(400)
    error.args = ("You sent the text 'maximum length', and no context is too long.",)
    assert verdict.of_provider(error).try_next is False
    error = Status(500)
    error.args = ("prompt is too long",)
    assert verdict.of_provider(error).failure == AttemptFailure.ATTEMPT_FAILURE_SERVER_ERROR


@pytest.mark.parametrize(
    ("error", "try_next"),
    [
        (Status(502, "providers_failed"), True),
        (Status(504, "providers_timed_out"), True),
        (Status(429, "providers_rate_limited"), True),
        (Status(404, "model_not_found"), True),
        (Status(400, "context_length_exceeded"), True),
        (Status(401, "unauthenticated"), False),
        (Status(429, "budget_exceeded"), False),
        (Status(429, "rate_limited"), False),
        (Status(503, "unavailable"), False),
        (Response(502), True),
        (Response(401), False),
        (ConnectError(), False),
        (ReadTimeout(), False),
    ],
)
def test_the_gateway_has_tried_the_models_providers_already(error: Exception, try_next: bool) -> None:
    assert verdict.of_gateway(error).try_next is try_next


def test_usage_is_read_in_the_shapes_that_there_are() -> None:
    assert usage_of(
        {
            "usage": {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 3,
            }
        }
    ) == Usage(input_tokens=108, output_tokens=7, cached_tokens=100)
    openai = SimpleNamespace(
        prompt_tokens=19,
        completion_tokens=10,
        prompt_tokens_details=SimpleNamespace(cached_tokens=8),
        completion_tokens_details=SimpleNamespace(reasoning_tokens=4),
    )
    assert usage_of(SimpleNamespace(usage=openai)) == Usage(
        input_tokens=19, output_tokens=10, cached_tokens=8, reasoning_tokens=4
    )
    for untold in ("text", None, {"usage": None}, {"usage": {"prompt_tokens": 3}}, {"usage": {"prompt_tokens": True}}):
        assert usage_of(untold) is None
