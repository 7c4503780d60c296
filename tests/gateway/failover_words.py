"""What became of a request, in the words of docs/failover.md."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.chat_client import Reply
    from gateway.chat_stack import Recorded, World


def said(world: World, reply: Reply) -> str:
    """Tell what the client got, in the words of the table."""
    letter = reply.headers.get("x-llmrouter-provider", "")[:1]
    if reply.status != 200:
        return f"{letter}'s {reply.status}" if letter else f"{reply.status} {reply.error.get('code')}"
    if reply.end == "broken":
        assert not reply.is_done
        return f"{letter}'s answer, broken off"
    if not reply.is_stream:
        return f"{letter}'s answer" + ("" if is_as_sent(world, letter, reply) else ", not as it was sent")
    if any("error" in chunk for chunk in reply.chunks):
        return f"{letter}'s stream, then " + ("an error event and [DONE]" if reply.is_done else "an error event")
    if not reply.is_done:
        is_finished = '"finish_reason":"stop"' in reply.body.decode()
        return f"{letter}'s answer, " + ("without [DONE]" if is_finished else "cut short")
    return f"{letter}'s answer" + ("" if is_as_sent(world, letter, reply) else ", not as it was sent")


def is_as_sent(world: World, letter: str, reply: Reply) -> bool:
    """Tell whether every byte is the provider's; of what was compressed, whether it is readable."""
    seen = world.providers[letter].chats[-1]
    if seen.fault == "gzip":
        return reply.text.startswith("w\u00f6rd")
    return seen.sent == hashlib.sha256(reply.body).hexdigest()


def told(attempt: Recorded) -> str:
    """Tell what was recorded of an attempt, in the words of the table."""
    words = [] if attempt.succeeded else [attempt.failure or "an unknown failure"]
    if attempt.is_estimated:
        words.append("estimated tokens")
        assert attempt.input_tokens > 0
    elif attempt.input_tokens or attempt.output_tokens:
        words.append(f"{attempt.input_tokens} + {attempt.output_tokens} tokens")
        assert (attempt.cached_tokens, attempt.reasoning_tokens) == (8, 4)
    return f"{attempt.at}: " + ", ".join(words or ["nothing"])
