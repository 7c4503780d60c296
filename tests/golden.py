"""Golden requests: JSON files with a request, what goes before it, and the exact answer through the real Envoy.

In them, `{name}` stands for a variable: `user`, `unique`, `today` and `yesterday` (UTC), a provider's name (its id), or
what an earlier step kept. A step `record` is a RecordUsageRequest, with the name or the id of a `model`.
`<uuid>`, `<time>`, `<count>` and `<text>` in an answer match any value of that kind; numbers match to 9 digits.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict

import http_json
from contract import API, Contract
from llmrouter.v2.usage_service_pb2 import RecordUsageRequest

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent / "transcoding" / "golden"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))
NEED_NO_DATABASE = {"error_503"}
"""Are played while it is away."""

KINDS = {
    "<uuid>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<time>": r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "<count>": r"\d+",
    "<text>": r"(?s).+",
}


@dataclass
class Player:
    """Plays a golden for one user against one stack."""

    url: str
    token: Callable[[str, uuid.UUID], str]
    record: Callable[[RecordUsageRequest], object]
    """Records usage over gRPC, as a service."""
    providers: dict[str, str]
    models: dict[str, str]
    contract: Contract
    """What each exchange is held to."""
    user: uuid.UUID = field(default_factory=uuid.uuid4)

    def play(self, name: str) -> http_json.Answer:
        golden = json.loads((FOLDER / f"{name}.json").read_text())
        today = datetime.now(UTC).date()
        variables = self.providers | {
            "user": str(self.user),
            "unique": f"golden {uuid.uuid4()}",
            "today": str(today),
            "yesterday": str(today - timedelta(days=1)),
        }
        for step in golden.get("given", []):
            self._prepare(step, variables)
        answer = self._send(golden, variables)
        check(golden["response"], answer, variables)
        return answer

    def _prepare(self, step: dict[str, Any], variables: dict[str, str]) -> None:
        if "record" in step:
            values = fill(step["record"], variables)
            model = values.pop("model")
            ids = {
                "user_id": str(self.user),
                "request_id": str(uuid.uuid4()),
                "model_id": self.models.get(model, model),
            }
            self.record(ParseDict(ids | values, RecordUsageRequest()))
            return
        answer = self._send(step, variables)
        assert answer.status in (200, 201), answer
        for variable, path in step.get("keep", {}).items():
            variables[variable] = answer.json[path]

    def _send(self, step: dict[str, Any], variables: dict[str, str]) -> http_json.Answer:
        request = fill(step["request"], variables)
        body = request.get("body", request.get("text"))
        if "text_of_bytes" in request:
            padding = request["text_of_bytes"] - len('{"task_type": ""}')
            body = '{"task_type": "' + "x" * padding + '"}'
        token = self.token(step["as"], self.user) if step["as"] else None
        answer = http_json.call(request["method"], self.url + request["path"], token=token, body=body)
        self.contract.hold(request["method"], API + request["path"], body, answer)
        return answer


def fill(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{([A-Za-z ]+)\}", lambda match: variables[match[1]], value)
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, variables) for key, item in value.items()}
    return value


def check(expected: dict[str, Any], answer: http_json.Answer, variables: dict[str, str]) -> None:
    """Fail, saying where, unless the answer is the expected one."""
    assert answer.status == expected["status"], answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    _same(fill(expected["body"], variables), answer.json, "body")
    for name, value in expected.get("headers", {}).items():
        _same(value, answer.headers.get(name), f"header {name}")


def _same(expected: Any, actual: Any, path: str) -> None:
    if isinstance(expected, dict):
        assert isinstance(actual, dict), f"{path}: {actual!r}"
        assert sorted(expected) == sorted(actual), f"{path}: other fields"
        for key, value in expected.items():
            _same(value, actual[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert isinstance(actual, list), f"{path}: {actual!r}"
        assert len(expected) == len(actual), f"{path}: {actual!r}"
        for position, value in enumerate(expected):
            _same(value, actual[position], f"{path}[{position}]")
    elif isinstance(expected, str) and expected in KINDS:
        is_number = isinstance(actual, int) and not isinstance(actual, bool) and expected == "<count>"
        assert is_number or isinstance(actual, str), f"{path}: {actual!r}"
        assert re.fullmatch(KINDS[expected], str(actual)), f"{path}: {actual!r} is no {expected}"
    elif isinstance(expected, (int, float)) and not isinstance(expected, bool):
        assert isinstance(actual, (int, float)), f"{path}: {actual!r} is no JSON number"
        assert not isinstance(actual, bool), f"{path}: {actual!r}"
        assert math.isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-9), f"{path}: {actual!r}, not {expected!r}"
    else:
        assert type(expected) is type(actual), f"{path}: {actual!r}"
        assert expected == actual, f"{path}: {actual!r}, not {expected!r}"
