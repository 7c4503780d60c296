"""Providers that refuse, each in its own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from gateway.answers import to_json
from gateway.behaviour import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.provider_exchange import Exchange


def status(
    code: int,
    body: object = None,
    headers: Iterable[tuple[str, str]] = (),
    *,
    name: str = "",
    description: str = "",
    content_type: str = "application/json",
) -> Fault:
    """Refuse with this body: bytes as they are, None for an error of OpenAI's shape, anything else as JSON."""
    said = error_body(f"The provider says {code}.", "server_error") if body is None else body
    data, kept = said if isinstance(said, bytes) else to_json(said), tuple(headers)

    async def act(exchange: Exchange) -> None:
        await exchange.answer(code, data, kept, content_type=content_type)

    return Fault(name or str(code), description or f"Answers {code}.", act)


def error_body(message: str, kind: str, code: str | int | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 6379 tokens "
    "(6029 in the messages, 350 in the completion). Please reduce the length of the messages or completion."
)
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 6204 `inputs` tokens and 2047"
ROUTED = (
    "This endpoint's maximum context length is 131072 tokens. However, you requested about 141607 tokens (10535 of "
    'text input, 131072 in the output). Please reduce the length of either one, or use the "middle-out" transform to '
    "compress your prompt automatically."
)
CROWDED = "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"
LONG = "prompt is too long: 208656 tokens > 200000 maximum"
REDUCE = "Please reduce the length of the messages or completion."
INVALID = "invalid_request_error"
TOO_LONG: dict[str, tuple[int, dict[str, Any]]] = {
    "openai": (400, error_body(VLLM, INVALID, "context_length_exceeded", "messages")),
    "groq": (400, error_body(REDUCE, INVALID, "context_length_exceeded", "messages")),
    "anthropic": (400, {"type": "error", "error": {"type": INVALID, "message": LONG}, "request_id": "req_1"}),
    "anthropic sum": (400, {"type": "error", "error": {"type": INVALID, "message": CROWDED}}),
    "anthropic as openai": (400, error_body(LONG, INVALID, INVALID)),
    "vllm": (400, error_body(VLLM, "BadRequestError", 400)),
    "old vllm": (400, {"object": "error", **error_body(VLLM, "BadRequestError", 400)["error"]}),
    "openrouter": (400, {"error": {"message": ROUTED, "code": 400, "metadata": {"provider_name": "Chutes"}}}),
    "together": (422, error_body(TGI + " `max_new_tokens`", INVALID, None, "max_tokens")),
    "huggingface": (422, {"error": TGI + " `max_new_tokens`", "error_type": "validation"}),
}
"""Whose wording: the status and the body."""


def too_long(whose: str = "openai") -> Fault:
    code, body = TOO_LONG[whose]
    return status(code, body, name=f"too long, {whose}", description="Refuses a prompt its context cannot hold.")


def content_filter() -> Fault:
    body = error_body("The response was filtered: content management policy.", INVALID, "content_filter", "prompt")
    return status(400, body, name="400 content filter", description="Refuses what is asked, not how.")


def bad_request() -> Fault:
    message = "Invalid value for 'temperature': 9. You sent the text 'maximum length', and no context is too long."
    body = error_body(message, INVALID, "invalid_value", "temperature")
    return status(400, body, name="400 invalid", description="Refuses a parameter, in words close to other refusals.")


def unauthorized() -> Fault:
    async def act(exchange: Exchange) -> None:
        key = exchange.seen.headers.get("authorization", "").partition(" ")[2]
        said = f"Incorrect API key provided: {key}. You can find your key at https://provider.test/keys."
        challenge = ("www-authenticate", f'Bearer realm="{key}"')
        await exchange.answer(401, to_json(error_body(said, INVALID, "invalid_api_key")), [challenge])

    return Fault("401 with the key", "Refuses the key and quotes it in body and header.", act)


def too_large() -> Fault:
    said = "Request too large for the model on tokens per minute (TPM): Limit 6000, Requested 8012."
    body = error_body(said, "tokens", "rate_limit_exceeded")
    return status(413, body, name="413", description="Refuses the size for a limit of the account, not of the model.")


def no_quota() -> Fault:
    body = error_body("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
    return status(429, body, name="429 no quota", description="Refuses until somebody pays.")


def rate_limited(retry_after: str | None = None) -> Fault:
    body = error_body("Rate limit reached for requests.", "requests", "rate_limit_exceeded")
    headers = [] if retry_after is None else [("retry-after", retry_after)]
    name = "429" if retry_after is None else f"429 retry-after {retry_after}"
    return status(429, body, headers, name=name, description="Is asked too often, and may say for how long to wait.")


def rate_limited_until(seconds: int) -> Fault:
    """Name the date that is so many seconds away when the request comes."""

    async def act(exchange: Exchange) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        await rate_limited(moment).act(exchange)

    return Fault("429 until a date", "Is asked too often, and gives the date from which it may be asked.", act)


def unavailable(retry_after: int | None = None) -> Fault:
    headers = [] if retry_after is None else [("retry-after", str(retry_after))]
    name = "503" if retry_after is None else f"503 retry-after {retry_after}"
    return status(503, None, headers, name=name, description="Is out of service, and may say for how long.")


def overloaded() -> Fault:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return status(529, body, name="529", description="Is overloaded, with a status of its own making.")


def bad_gateway() -> Fault:
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    return status(502, page, name="502", description="A page of its proxy.", content_type="text/html")


def no_such_path() -> Fault:
    return status(404, error_body("Invalid URL", INVALID), name="404 path", description="Does not know the path.")


def no_such_model() -> Fault:
    body = error_body("The model does not exist or you do not have access to it.", INVALID, "model_not_found")
    return status(404, body, name="404", description="Does not have the model, or not for this key.")
