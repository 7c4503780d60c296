"""The gateway's own errors, as OpenAI's clients read them."""

from __future__ import annotations

import json
from decimal import Decimal

import grpc
import pytest

from llmrouter_server import errors
from llmrouter_server.gateway.openai_errors import error_body


def told(error: errors.DomainError) -> tuple[int, dict[str, str | None]]:
    status, body, _ = error_body(error)
    members = json.loads(body)
    assert members.keys() == {"error"}
    assert members["error"].keys() == {"message", "type", "param", "code"}
    return status, members["error"]


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.invalid(("n", "is odd")), 400, "invalid_request_error", "invalid_field"),
        (errors.malformed_request(), 400, "invalid_request_error", "malformed_request"),
        (errors.unauthenticated("who?"), 401, "authentication_error", "unauthenticated"),
        (errors.role_required("no"), 403, "permission_error", "role_required"),
        (errors.not_found("model"), 404, "not_found_error", "resource_not_found"),
        (errors.rate_limited("slow", 9), 429, "rate_limit_error", "rate_limited"),
        (errors.budget_exceeded(Decimal(5), Decimal(6), 9), 429, "insufficient_quota", "budget_exceeded"),
        (errors.unavailable(), 503, "server_error", "unavailable"),
        (errors.deadline_exceeded(), 504, "server_error", "deadline_exceeded"),
        (errors.internal(), 500, "server_error", "internal"),
        (errors.DomainError("ABORTED", grpc.StatusCode.ABORTED, "m"), 500, "server_error", "aborted"),
    ],
)
def test_an_error_has_its_status_type_and_code(error: errors.DomainError, status: int, kind: str, code: str) -> None:
    got_status, body = told(error)
    assert (got_status, body["type"], body["code"], body["message"]) == (status, kind, code, error.message)


def test_the_first_wrong_field_is_the_param() -> None:
    assert told(errors.invalid(("messages[0].role", "is wrong"), ("n", "too")))[1]["param"] == "messages[0].role"
    assert told(errors.malformed_request())[1]["param"] is None


def test_a_client_is_told_when_to_come_back_if_that_is_known() -> None:
    assert error_body(errors.rate_limited("slow", 9))[2] == {"content-type": "application/json", "retry-after": "9"}
    assert error_body(errors.internal())[2] == {"content-type": "application/json"}


def test_a_client_is_told_not_to_try_again_when_the_budget_is_used_up() -> None:
    headers = error_body(errors.budget_exceeded(Decimal(5), Decimal(6), 86_400))[2]
    assert headers == {"content-type": "application/json", "retry-after": "86400", "x-should-retry": "false"}
    _, body, headers = error_body(errors.no_eligible_model({"OVER_BUDGET": 3}))
    assert json.loads(body)["error"]["type"] == "insufficient_quota"
    assert headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("counts", "status", "code", "param"),
    [
        ({"MODEL_NAME": 21}, 404, "model_not_found", "model"),
        ({"MODEL_NAME": 19, "MODEL_DISABLED": 1, "PROVIDER_DISABLED": 1}, 404, "model_not_found", "model"),
        ({"MODEL_NAME": 20, "KEY_REQUIRED": 1}, 404, "no_eligible_model", None),
        ({"MODEL_NAME": 20, "CONTEXT_TOO_SMALL": 1}, 400, "context_length_exceeded", "messages"),
        ({"POWER_LEVEL": 17, "KEY_REQUIRED": 2, "CONTEXT_TOO_SMALL": 2}, 400, "context_length_exceeded", "messages"),
        ({"POWER_LEVEL": 17, "KEY_REQUIRED": 4}, 404, "no_eligible_model", None),
        ({"MODEL_NAME": 20, "OVER_BUDGET": 1}, 429, "budget_exceeded", None),
        ({"POWER_LEVEL": 10, "OVER_BUDGET": 10, "CONTEXT_TOO_SMALL": 1}, 400, "context_length_exceeded", "messages"),
        ({"MODEL_DISABLED": 21}, 404, "no_eligible_model", None),
        ({}, 404, "no_eligible_model", None),
    ],
)
def test_nobody_eligible_says_what_the_client_can_change(
    counts: dict[str, int], status: int, code: str, param: str | None
) -> None:
    got_status, body = told(errors.no_eligible_model(counts))
    assert (got_status, body["code"], body["param"]) == (status, code, param)
    kinds = {400: "invalid_request_error", 404: "not_found_error", 429: "insufficient_quota"}
    assert body["type"] == kinds[status]
    for reason, count in counts.items():
        assert f"{reason} {count}" in str(body["message"])


def test_a_message_with_any_sign_is_good_json() -> None:
    assert told(errors.invalid(('"\n\\é\ud800', "is wrong")))[1]["param"] == '"\n\\é\ud800'
