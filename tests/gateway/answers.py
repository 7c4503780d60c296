"""What a well provider says, whole or as a stream, and how it tells what it used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.provider_exchange import Seen

DONE = b"data: [DONE]\n\n"
SSE = "text/event-stream; charset=utf-8"
WORD = "wörd ✓ 🙂 {}; "
"""Of one, two, three and four bytes a character."""


class Usage(StrEnum):
    """How an answer says what it used."""

    OPENAI = "openai"
    """In a stream only if asked: a last chunk without choices, and null in all others."""
    ALWAYS = "always"
    """The same chunk, asked for or not."""
    WITH_FINISH = "with_finish"
    """In the chunk that has the finish_reason, asked for or not."""
    GROQ = "groq"
    """In the chunk that has the finish_reason, inside x_groq, asked for or not."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. Its content comes in so many chunks, the first after first_s seconds, each other after delay_s."""

    content: str = ""
    """"": a word a chunk."""
    chunks: int = 4
    first_s: float = 0.0
    delay_s: float = 0.0
    prompt_tokens: int = 19
    completion_tokens: int = 10
    cached_tokens: int = 8
    reasoning_tokens: int = 4
    usage: Usage = Usage.OPENAI
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        return self.content or "".join(WORD.format(number) for number in range(self.chunks))

    def pieces(self) -> list[str]:
        text = self.text
        ends = [len(text) * number // self.chunks for number in range(self.chunks + 1)]
        return [text[start:end] for start, end in pairwise(ends)]

    def figures(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens, "audio_tokens": 0},
        }

    def whole(self, seen: Seen) -> bytes:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        used = {} if self.usage is Usage.NEVER else {"usage": self.figures()}
        return to_json({**_frame(seen, "chat.completion"), "choices": [choice], **used})

    def events(self, seen: Seen) -> list[bytes]:
        """Return the role, the content, the finish_reason, the usage if it is to be told, and [DONE]."""
        told = self.usage is Usage.ALWAYS or (self.usage is Usage.OPENAI and seen.wants_usage)
        frame = {**_frame(seen, "chat.completion.chunk"), **({"usage": None} if told else {})}
        deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in self.pieces())]
        chunks = [{**frame, "choices": [choice_of(delta)]} for delta in deltas]
        last = {**frame, "choices": [choice_of({}, self.finish_reason)]}
        if self.usage is Usage.WITH_FINISH:
            last["usage"] = self.figures()
        if self.usage is Usage.GROQ:
            last["x_groq"] = {"id": "req_groq", "usage": self.figures()}
        chunks.append(last)
        if told:
            chunks.append({**frame, "choices": [], "usage": self.figures()})
        return [event(to_json(chunk)) for chunk in chunks] + [DONE]

    def parts(self, seen: Seen) -> list[bytes]:
        """Return what is sent one by one: events, or the pieces of one JSON document."""
        if seen.wants_stream:
            return self.events(seen)
        body = self.whole(seen)
        size = -(-len(body) // self.chunks)
        return [body[start : start + size] for start in range(0, len(body), size)]


def checked(chunks: int = 1000, *, size: int = 40, delay_s: float = 0.0) -> Answer:
    """Return a long answer whose content ends with the SHA-256 of all before: see `is_unharmed`."""
    words = "".join(WORD.format(number) for number in range(chunks * size // len(WORD) + 1))
    return Answer(content=words + hashlib.sha256(words.encode()).hexdigest(), chunks=chunks, delay_s=delay_s)


def is_unharmed(content: str) -> bool:
    return content[-64:] == hashlib.sha256(content[:-64].encode()).hexdigest()


OK = Answer()


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def _frame(seen: Seen, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-of-the-provider",
        "object": kind,
        "created": 1_700_000_000,
        "model": seen.body.get("model"),
        "system_fingerprint": "fp_provider",
    }


def choice_of(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def to_json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


OK_JSON = {"object": "chat.completion", "choices": [choice_of({"content": "ok"}, "stop")], "usage": OK.figures()}
