"""JSON over HTTP as a plain client would do it: one request, no redirects, no retries."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    json: Any
    """None when the body is empty; the text itself when it is no JSON."""


def call(
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Send `body` as JSON; one of type bytes or str as it is. Headers that are given win over those made here."""
    parts = urlsplit(url)
    sent = {"accept": "application/json"}
    if body is not None:
        sent["content-type"] = "application/json"
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    payload = body if isinstance(body, bytes | str | None) else json.dumps(body)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, payload, sent)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        received = {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
    try:
        parsed = json.loads(text) if text else None
    except ValueError:
        parsed = text
    return Answer(answer.status, received, parsed)
