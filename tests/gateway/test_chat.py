"""What the gateway reads of a chat request, what it refuses, and what it sends on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmrouter_server.errors import DomainError
from llmrouter_server.gateway.chat import ChatRequest, head_of, read_chat

HELLO = {"role": "user", "content": "hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000, "detail": "high"}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


def read(**members: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": [HELLO], **members}).encode())


def sent(request: ChatRequest, max_tokens_name: str = "max_tokens") -> Any:
    return json.loads(head_of("m", max_tokens_name, request.max_output).encode() + request.rest)


def refused_fields(**members: Any) -> dict[str, str]:
    with pytest.raises(DomainError) as raised:
        read(**members)
    assert raised.value.reason == "INVALID_FIELD"
    return {violation.field: violation.description for violation in raised.value.violations}


def test_what_is_not_said_has_its_usual_value() -> None:
    request = read()
    assert (request.model, request.allow_fallbacks, request.choices) == ("auto", False, 1)
    assert (request.stream, request.wants_usage, request.max_output) == (False, False, None)
    assert request.capabilities == {"chat"}
    assert request.priced_apart == ()


def test_null_is_as_good_as_nothing() -> None:
    names = ("model", "allow_fallbacks", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens")
    more = ("tools", "functions", "response_format", "service_tier", "modalities", "audio", "plugins", "provider")
    request = read(**dict.fromkeys((*names, *more)))
    assert (request.model, request.choices, request.max_output) == ("auto", 1, None)
    assert request.capabilities == {"chat"}
    assert request.priced_apart == ()


def test_what_is_said_is_read() -> None:
    request = read(
        model="precision",
        allow_fallbacks=True,
        n=3,
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=200,
        max_completion_tokens=100,
    )
    assert (request.model, request.allow_fallbacks, request.choices) == ("precision", True, 3)
    assert (request.stream, request.wants_usage, request.max_output) == (True, True, 100)


@pytest.mark.parametrize(
    ("members", "capability"),
    [
        ({"stream": True}, "streaming"),
        ({"tools": [TOOL]}, "tools"),
        ({"functions": [{"name": "f"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, "json"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "vision"),
        ({"messages": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b"}]}]}, "vision"),
        ({"messages": [{"role": "tool", "content": [{"image_url": {"url": "https://a/b"}}]}]}, "vision"),
    ],
)
def test_what_is_used_must_be_a_capability(members: dict[str, Any], capability: str) -> None:
    assert read(**members).capabilities == {"chat", capability}


@pytest.mark.parametrize(
    "members", [{"tools": []}, {"functions": []}, {"response_format": {"type": "text"}}, {"stream": False}]
)
def test_what_is_named_but_not_used_need_not_be_one(members: dict[str, Any]) -> None:
    assert read(**members).capabilities == {"chat"}


@pytest.mark.parametrize(
    ("members", "field", "description"),
    [
        ({"model": 7}, "model", "must be a string"),
        ({"model": ""}, "model", "must be 1 to 200 printable characters"),
        ({"model": "m" * 201}, "model", "must be 1 to 200 printable characters"),
        ({"model": "a\0b"}, "model", "must be 1 to 200 printable characters"),
        ({"model": "\ud800"}, "model", "must be 1 to 200 printable characters"),
        ({"messages": None}, "messages", "must have at least one message"),
        ({"messages": []}, "messages", "must have at least one message"),
        ({"messages": {}}, "messages", "must be a list"),
        ({"messages": [HELLO, "hello"]}, "messages[1]", "must be an object"),
        ({"messages": [{"content": "hello"}]}, "messages[0].role", "must be a string"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "must be a string"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "must be a string, a list or null"),
        ({"messages": [{"role": "user", "content": ["a", 1]}]}, "messages[0].content[1]", "must be an object"),
        ({"stream": "true"}, "stream", "must be true or false"),
        ({"stream": 1}, "stream", "must be true or false"),
        ({"stream_options": []}, "stream_options", "must be an object"),
        (
            {"stream_options": {"include_usage": "yes"}},
            "stream_options.include_usage",
            "must be true or false",
        ),
        ({"max_tokens": 0}, "max_tokens", "must be from 1 to 1000000000"),
        ({"max_tokens": 10**30}, "max_tokens", "must be from 1 to 1000000000"),
        ({"max_tokens": True}, "max_tokens", "must be an integer"),
        ({"max_tokens": 1.5}, "max_tokens", "must be an integer"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "must be an integer"),
        ({"n": 0}, "n", "must be from 1 to 128"),
        ({"n": 129}, "n", "must be from 1 to 128"),
        ({"tools": {}}, "tools", "must be a list"),
        ({"tools": [TOOL, 1]}, "tools[1]", "must be an object"),
        ({"functions": ["f"]}, "functions[0]", "must be an object"),
        ({"tools": [TOOL], "functions": ["f"]}, "functions[0]", "must be an object"),
        ({"response_format": "json"}, "response_format", "must be an object"),
        ({"allow_fallbacks": "no"}, "allow_fallbacks", "must be true or false"),
        ({"Max_Tokens": 9}, "Max_Tokens", "must be written max_tokens"),
        ({"max_to\N{KELVIN SIGN}ens": 9}, "max_to\N{KELVIN SIGN}ens", "must be written max_tokens"),
    ],
)
def test_a_wrong_field_is_named(members: dict[str, Any], field: str, description: str) -> None:
    assert refused_fields(**members) == {field: description}


@pytest.mark.parametrize("name", ["models", "route", "preset"])
@pytest.mark.parametrize("value", [None, "fallback", ["a", "b"]])
def test_nobody_else_may_choose_the_model(name: str, value: Any) -> None:
    assert refused_fields(**{name: value}) == {name: "is not taken: the gateway decides which model answers"}


def test_all_wrong_fields_are_told_at_once() -> None:
    assert refused_fields(model=1, stream=2, n=0, messages=3).keys() == {"model", "stream", "n", "messages"}


def test_the_provider_gets_the_body_with_its_own_model_and_bound() -> None:
    request = read(model="eco", allow_fallbacks=True, max_tokens=9, max_completion_tokens=8, temperature=0.5)
    assert head_of("a/b", "max_tokens", request.max_output) == '{"model":"a/b","max_tokens":8'
    assert request.rest == b',"messages": [{"role": "user", "content": "hello"}],"temperature": 0.5}'
    assert sent(request, "max_completion_tokens") == {
        "model": "m",
        "max_completion_tokens": 8,
        "messages": [HELLO],
        "temperature": 0.5,
    }


def test_without_a_bound_none_is_sent() -> None:
    assert sent(read(model="eco")) == {"model": "m", "messages": [HELLO]}


def test_a_models_name_is_written_as_json() -> None:
    assert json.loads(head_of('quote " and \\ and é', "max_tokens", None) + "}") == {"model": 'quote " and \\ and é'}


def test_a_stream_is_always_asked_for_its_usage() -> None:
    assert sent(read(stream=True))["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(read(stream=True, stream_options=options))["stream_options"] == {**options, "include_usage": True}
    assert "stream_options" not in sent(read())


def test_options_of_a_stream_that_is_none_stay_as_they_are() -> None:
    assert sent(read(stream_options={"include_usage": False}))["stream_options"] == {"include_usage": False}


def test_every_sign_of_what_is_not_ours_stays_as_it_was_written() -> None:
    messages = '"messages" : [ {"role":"user","content":"é \\u00e9 \\ud800 \\/ 😀"} ]'
    new = '"new":{"a":[1.0,1e2,-0.0,1' + "0" * 60 + "]}"
    body = f'\n{{ "model":"x",{messages} ,\n{new}}} '.encode()
    assert read_chat(body).rest == f",{messages},{new}}}".encode()


def test_images_and_tools_go_on_unchanged() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "what?"}, IMAGE]}]
    assert sent(read(messages=messages, tools=[TOOL])) == {"model": "m", "messages": messages, "tools": [TOOL]}


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({"plugins": [{"id": "web"}]}, ("plugins",)),
        ({"web_search_options": {}}, ("web_search_options",)),
        ({"service_tier": "priority"}, ("service_tier",)),
        ({"service_tier": ["flex"]}, ("service_tier",)),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, ("audio", "modalities")),
        ({"prediction": {"type": "content", "content": "x"}}, ("prediction",)),
        ({"provider": {"sort": "throughput"}}, ("provider",)),
        ({"tools": [TOOL, {"type": "web_search"}]}, ("tools",)),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, ("audio",)),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, ("file",)),
        ({"messages": [{"role": "user", "content": [{"video_url": {"url": "https://a/b"}}]}]}, ("video_url",)),
    ],
)
def test_what_makes_the_price_unknowable_is_named(members: dict[str, Any], names: tuple[str, ...]) -> None:
    assert read(**members).priced_apart == names


@pytest.mark.parametrize(
    "members",
    [{"service_tier": tier} for tier in ("auto", "default", "flex")]
    + [{"modalities": ["text"]}, {"tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}]}],
)
def test_what_has_the_usual_price_is_not(members: dict[str, Any]) -> None:
    assert read(**members).priced_apart == ()


def test_what_people_wrote_is_not_shown_by_its_request() -> None:
    assert "hello" not in repr(read())
