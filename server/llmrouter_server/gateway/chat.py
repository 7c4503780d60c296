"""What the gateway knows of a chat request in OpenAI's shape. All that it does not know goes on as it came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from llmrouter_server import errors
from llmrouter_server.gateway.json_object import read_object
from llmrouter_server.gateway.prompt import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmrouter_server.gateway.json_object import Member

AUTO = "auto"
MAX_MODEL_CHARS = 200
MAX_OUTPUT_TOKENS = 1_000_000_000
MAX_CHOICES = 128

_OURS = frozenset({"model", "allow_fallbacks", "max_tokens", "max_completion_tokens"})
"""Not for the provider, or put in front for each provider anew."""
_READ_BY_MODEL = frozenset({"tools", "functions", "response_format"})
_REFUSED = ("models", "route", "preset")
"""OpenRouter's own choices: with them another model could answer than the one that was decided."""
_PRICED_APART = ("plugins", "web_search_options", "audio", "prediction", "provider")
"""Searches and files, speech, what was predicted wrongly (paid as output, whatever the bound), a dearer upstream."""
_PLAIN_TIERS = ("auto", "default", "flex")
_PLAIN_TOOLS = ("function", "custom")
"""Tools that the client runs. Others run at the provider, which has its price for each use."""
_NAMES = _OURS.union(
    _READ_BY_MODEL, _REFUSED, _PRICED_APART, ("messages", "stream", "stream_options", "n", "modalities", "service_tier")
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat request, as far as deciding, holding money and sending it on need it."""

    model: str
    """`auto`, a power level or a model's name, as the client wrote it."""
    allow_fallbacks: bool
    stream: bool
    wants_usage: bool
    """The client asked for the chunk with the usage."""
    max_output: int | None
    """Most tokens of one choice; None: the client set no bound."""
    choices: int
    """1 to MAX_CHOICES."""
    capabilities: frozenset[str]
    prompt_tokens: int
    """About how many tokens the prompt is."""
    prompt_bound: int
    """The most tokens that the prompt can be."""
    priced_apart: tuple[str, ...]
    """What makes the request's price unknowable beforehand, by its name; sorted."""
    rest: bytes = field(repr=False)
    """The provider's body after its head: `,"messages":[…],…}`."""


def head_of(model_name: str, max_tokens_name: str, max_output: int | None) -> str:
    """Return the beginning of the body for a provider: its name for the model, its name for the output's bound."""
    bound = "" if max_output is None else f',"{max_tokens_name}":{max_output}'
    return f'{{"model":{json.dumps(model_name)}{bound}'


def read_chat(body: bytes) -> ChatRequest:
    """Read a chat request. MALFORMED_REQUEST: as read_object; INVALID_FIELD: with each field that is wrong."""
    members = read_object(body)
    fields = _Fields(members)
    fields.check_names()
    stream, options = fields.flag("stream"), fields.members_of("stream_options")
    bounds = [
        bound for name in ("max_tokens", "max_completion_tokens") if (bound := fields.count(name, MAX_OUTPUT_TOKENS))
    ]
    tools, functions = fields.objects("tools"), fields.objects("functions")
    capabilities = {
        "chat": True,
        "streaming": stream,
        "tools": bool(tools or functions),
        "json": fields.members_of("response_format").get("type") in ("json_object", "json_schema"),
    }
    model, allow_fallbacks, choices = fields.model(), fields.flag("allow_fallbacks"), fields.count("n", MAX_CHOICES)
    wants_usage = fields.is_true("stream_options.include_usage", options.get("include_usage"))
    messages = fields.messages()
    fields.done()
    prompt = Prompt()
    prompt.add_messages(messages)
    _add_rest(prompt, members)
    tokens, bound = prompt.tokens()
    capabilities["vision"] = prompt.images > 0
    return ChatRequest(
        model=model,
        allow_fallbacks=allow_fallbacks,
        stream=stream,
        wants_usage=wants_usage,
        max_output=min(bounds, default=None),
        choices=choices or 1,
        capabilities=frozenset(name for name, is_needed in capabilities.items() if is_needed),
        prompt_tokens=tokens,
        prompt_bound=bound,
        priced_apart=tuple(sorted(prompt.priced_apart.union(_priced_apart(members, tools)))),
        rest=_rest(members, options if stream else None),
    )


class _Fields:
    """Reads members of the body and collects what is wrong with them; null is as good as absent."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._violations: list[tuple[str, str]] = []

    def done(self) -> None:
        if self._violations:
            raise errors.invalid(*self._violations)

    def check_names(self) -> None:
        """Refuse what would choose another model, and a name that only a careless reader takes for one of ours."""
        for name in self._members:
            if name in _REFUSED:
                self._wrong(name, "is not taken: the gateway decides which model answers")
            elif name not in _NAMES and name.casefold() in _NAMES:
                self._wrong(name, f"must be written {name.casefold()}")

    def model(self) -> str:
        model = self._of("model", str, "a string")
        if model is not None and not (0 < len(model) <= MAX_MODEL_CHARS and model.isprintable()):
            self._wrong("model", f"must be 1 to {MAX_MODEL_CHARS} printable characters")
        return AUTO if model is None else model

    def messages(self) -> list[object]:
        messages: list[object] | None = self._of("messages", list, "a list")
        if not messages and "messages" not in (path for path, _ in self._violations):
            self._wrong("messages", "must have at least one message")
        return messages or []

    def flag(self, name: str) -> bool:
        return self.is_true(name, _value(self._members, name))

    def is_true(self, path: str, value: object) -> bool:
        if value is not None and not isinstance(value, bool):
            self._wrong(path, "must be true or false")
        return value is True

    def count(self, name: str, most: int) -> int | None:
        count = self._of(name, int, "an integer")
        if count is not None and not 1 <= count <= most:
            self._wrong(name, f"must be from 1 to {most}")
        return count

    def members_of(self, name: str) -> dict[str, object]:
        members: dict[str, object] | None = self._of(name, dict, "an object")
        return members or {}

    def objects(self, name: str) -> list[dict[str, object]]:
        elements: list[dict[str, object]] = self._of(name, list, "a list") or []
        for index, element in enumerate(elements):
            if not isinstance(element, dict):
                self._wrong(f"{name}[{index}]", "must be an object")
                return []
        return elements

    def _of(self, name: str, kind: type[T], what: str) -> T | None:
        value = _value(self._members, name)
        if isinstance(value, kind) and (kind is not int or not isinstance(value, bool)):
            return value
        if value is not None:
            self._wrong(name, f"must be {what}")
        return None

    def _wrong(self, path: str, description: str) -> None:
        self._violations.append((path, description))


def _value(members: Mapping[str, Member], name: str) -> object:
    member = members.get(name)
    return None if member is None else member.value


def _add_rest(prompt: Prompt, members: Mapping[str, Member]) -> None:
    """Add all but the messages: whatever it is, a model may read it."""
    for name, member in members.items():
        if name in _READ_BY_MODEL:
            prompt.add_form(str(member.raw, "utf-8"))
        elif name != "messages" and name not in _OURS:
            prompt.add_unread(len(member.raw))


def _priced_apart(members: Mapping[str, Member], tools: list[dict[str, object]]) -> Iterator[str]:
    for name in _PRICED_APART:
        if _value(members, name) is not None:
            yield name
    if _value(members, "service_tier") not in (None, *_PLAIN_TIERS):
        yield "service_tier"
    if _value(members, "modalities") not in (None, [], ["text"]):
        yield "modalities"
    if any(tool.get("type", "function") not in _PLAIN_TOOLS for tool in tools):
        yield "tools"


def _rest(members: Mapping[str, Member], stream_options: dict[str, object] | None) -> bytes:
    parts: list[bytes | memoryview] = []
    for name, member in members.items():
        if name not in _OURS and (stream_options is None or name != "stream_options"):
            parts += (b",", member.raw)
    if stream_options is not None:  # the usage of a stream is charged, so it is always asked for
        parts += (b',"stream_options":', json.dumps({**stream_options, "include_usage": True}).encode())
    return b"".join((*parts, b"}"))
