"""What must hold whatever is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.rpc import error_details_pb2, status_pb2

from llmrouter.v2.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from llmrouter_server.runtime.local_stack import LocalStack

REASONS = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
INTERNALS = ("Traceback", "asyncpg", "postgresql://", "llmrouter_server", "select ", "insert into", "site-packages")
LEAKED = "canary-5d41402abc4b2a76"


def check_text(text: str, sent: str = "") -> None:
    """Nothing of our insides, and nobody's key; what the caller sent may come back."""
    for inside in (*INTERNALS, LEAKED):
        assert inside not in text or inside in sent, f"{inside!r} in {text[:500]!r}"


def check_status(details: bytes) -> str:
    """Return the reason of an error; it must be one of the API's."""
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info), status
    assert info.domain == "llmrouter"
    assert info.reason in REASONS, info
    return info.reason


def check_json_error(body: Any) -> str:
    """Return the reason of an error as JSON; its shape is the one of all errors."""
    assert isinstance(body, dict), body
    assert set(body) == {"code", "message", "details"}, body
    info = body["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo", body
    assert info["reason"] in REASONS, body
    return str(info["reason"])


def check_logs(stack: LocalStack) -> None:
    """After the end: every line of the logs is one JSON object, no exception was unexpected, no key is in them."""
    for name in ("server.log", "access.log"):
        for line in (stack.home / "logs" / name).read_text(encoding="utf-8").splitlines():
            assert isinstance(json.loads(line), dict), line[:300]
            assert "unhandled exception" not in line, line[:3000]
            assert LEAKED not in line
