"""What makes an answer the right one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.mock_provider import ANSWER, CONTENT, INPUT_TOKENS, OUTPUT_TOKENS, PIECE, stream_of

if TYPE_CHECKING:
    from collections.abc import Callable

ROUTED = 4
"""A primary and three fallbacks."""
END = b"data: [DONE]\n\n"


def is_whole(body: bytes) -> bool:
    """Whether it is the provider's answer, byte by byte."""
    return body == ANSWER


def means_the_same(body: bytes) -> bool:
    """Whether it says the provider's text, reason of its end and tokens. Gateways write the rest anew."""
    said = json.loads(body)
    (choice,) = said["choices"]
    usage = said["usage"]
    return (
        choice["message"]["content"] == CONTENT
        and choice["finish_reason"] == "stop"
        and (usage["prompt_tokens"], usage["completion_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    )


def is_a_route(body: bytes) -> bool:
    """Whether it is an answer of Route with all the choices that there should be."""
    routed = json.loads(body)
    return (
        routed["total_options"] == ROUTED
        and len(routed["fallbacks"]) == ROUTED - 1
        and bool(routed["primary"]["model_name"])
    )


def is_whole_stream(body: bytes, chunks: int) -> bool:
    """Whether it is the provider's stream, byte by byte."""
    return body == stream_of(chunks)


def streams_the_same(body: bytes, chunks: int) -> bool:
    """Whether it says so many chunks of the provider's text, the reason of their end and the tokens, and ends."""
    if not body.endswith(END):
        return False
    said = [json.loads(line[6:]) for line in body.removesuffix(END).split(b"\n\n") if line.startswith(b"data: ")]
    choices = [choice for each in said for choice in each["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    tokens = [usage["completion_tokens"] for each in said if (usage := each.get("usage"))]
    return text == PIECE * chunks and reasons == ["stop"] and tokens == [OUTPUT_TOKENS]


JUDGES: dict[str, Callable[[bytes], bool]] = {
    "the provider's bytes": is_whole,
    "the provider's meaning": means_the_same,
    "a route": is_a_route,
}
STREAM_JUDGES: dict[str, Callable[[bytes, int], bool]] = {
    "the provider's bytes": is_whole_stream,
    "the provider's meaning": streams_the_same,
}
