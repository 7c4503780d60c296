"""The document itself: valid, and saying what the protos and the server's tables say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from openapi_spec_validator import OpenAPIV31SpecValidator

import contract
from llmrouter.v2.error_reason_pb2 import ErrorReason
from llmrouter_server.runtime.openapi import comments
from llmrouter_server.runtime.openapi.protos import read_protos
from llmrouter_server.runtime.resources import resource_dir


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return contract.document()


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def test_it_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_rpc_with_a_path_is_an_operation_and_nothing_else_is(document: dict[str, Any]) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString((resource_dir("envoy") / "llmrouter.binpb").read_bytes()).file
    bound = set()
    for method in (method for file in files for service in file.service for method in service.method):
        if method.options.HasExtension(annotations_pb2.http):
            rule = method.options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            bound.add((verb, getattr(rule, verb), method.name[0].lower() + method.name[1:]))
    told = {
        (verb, path, operation["operationId"])
        for path, item in document["paths"].items()
        for verb, operation in item.items()
        if path.startswith(contract.API)
    }
    assert told == bound


def test_everything_is_explained(document: dict[str, Any]) -> None:
    for name, each in document["components"]["schemas"].items():
        assert each.get("description"), name
        for field, described in each.get("properties", {}).items():
            assert (
                name.startswith("Chat")
                or field == "domain"
                or field.startswith("@")
                or "$ref" in described
                or (described.get("description"))
            ), f"{name}.{field}"
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["summary"], operation["operationId"]
            assert all(parameter["description"] for parameter in operation.get("parameters", []))


def test_every_reason_of_the_protos_is_told_with_its_status(document: dict[str, Any]) -> None:
    reasons = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()][1:]  # noqa: SIM118 - no mapping
    assert schema(document, "ErrorReason")["enum"] == reasons
    for path, item in document["paths"].items():
        for operation in item.values() if path.startswith(contract.API) else ():
            for status, response in operation["responses"].items():
                if status < "400":
                    continue
                *_, key = response["$ref"].split("/")
                [_, only] = document["components"]["responses"][key]["content"]["application/json"]["schema"]["allOf"]
                info = only["properties"]["details"]["contains"]
                assert set(info["properties"]["reason"]["enum"]) <= set(reasons)


@pytest.mark.parametrize(
    ("name", "field", "expected"),
    [
        ("RouteRequest", "fallback_count", {"type": ["integer", "null"], "minimum": 1, "maximum": 5, "default": 3}),
        ("UpdateModelRequest", "quality_score", {"type": ["number", "null"], "minimum": 0, "maximum": 10}),
        ("UpdateModelRequest", "input_cost_per_1m", {"type": ["number", "null"], "minimum": 0, "maximum": 999_999}),
        ("UpdateModelRequest", "power_level", {
            "anyOf": [{"$ref": "#/components/schemas/PowerLevelInput"}, {"type": "null"}],
        }),
        ("StoreKeyRequest", "api_key", {
            "type": "string", "minLength": 16, "maxLength": 512, "pattern": "^[!-~]+$", "writeOnly": True,
        }),
        ("UsageRecord", "decision_id", {
            "anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "const": ""}],
        }),
        ("Model", "created_at", {"type": "string", "format": "date-time"}),
        ("Provider", "config", {"type": "object", "additionalProperties": True}),
        ("Settings", "preferred_power_level", {"$ref": "#/components/schemas/PowerLevel"}),
    ],
)  # fmt: skip
def test_fields_have_the_ranges_formats_and_defaults_of_their_comments(
    document: dict[str, Any], name: str, field: str, expected: dict[str, Any]
) -> None:
    described = dict(schema(document, name)["properties"][field])
    assert described.pop("description")
    assert described == expected


def test_what_is_required_and_what_may_be_absent(document: dict[str, Any]) -> None:
    assert schema(document, "StoreKeyRequest")["required"] == ["provider_id", "api_key"]
    assert "key_id" not in schema(document, "UpdateKeyRequest")["properties"]
    assert schema(document, "UpdateKeyRequest")["additionalProperties"] is False
    assert "required" not in schema(document, "RouteRequest")
    absent = set(schema(document, "Settings")["properties"]) - set(schema(document, "Settings")["required"])
    assert absent == {"monthly_budget_usd", "updated_at"}
    absent = set(schema(document, "RouteResponse")["properties"]) - set(schema(document, "RouteResponse")["required"])
    assert absent == {"explanation", "rule"}
    assert "required" not in schema(document, "RoutingConfigInput")
    assert len(schema(document, "RoutingConfig")["required"]) == 4


def test_a_value_that_is_never_returned_is_not_listed(document: dict[str, Any]) -> None:
    assert schema(document, "PowerLevel")["enum"] == ["ECO", "BALANCED", "PRECISION"]
    assert "ATTEMPT_FAILURE_UNSPECIFIED" in schema(document, "AttemptFailure")["enum"]


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("The last so many UTC days, today included, 1 to 365. Default 30.", {"minimum": 1, "maximum": 365}),
        ("The most rows in one answer, 1 to 500. Default (0) 100.", {"minimum": 0, "maximum": 500}),
        ("New context size, 1 to 1,000,000,000 tokens.", {"minimum": 1, "maximum": 1_000_000_000}),
        ("Input tokens, exact to 2^53.", {}),
        ("1 - cost / (cost of the dearest candidate).", {}),
        ("A port, 1 to many.", {}),
    ],
)
def test_ranges_are_read_from_comments(comment: str, expected: dict[str, int]) -> None:
    assert comments.number_range(comment) == expected


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("Default 30. Not together with start_date.", {"default": 30}),
        ("Weight, 0 to 1. Default 0.4.", {"default": 0.4}),
        ("Default (0) 100.", {"default": 100}),
        ("Default false: all.", {"default": False}),
        ("`day` (UTC) or `hour`. Default `day`.", {"default": "day"}),
        ("Default BALANCED.", {"default": "BALANCED"}),
        ("Default: model_name.", {}),
        ("Default today.", {}),
        ("Default {}.", {}),
    ],
)
def test_defaults_are_read_from_comments(comment: str, expected: dict[str, object]) -> None:
    assert comments.default(comment) == expected


def test_descriptors_without_comments_are_refused() -> None:
    with pytest.raises(ValueError, match="--include_source_info"):
        read_protos((resource_dir("envoy") / "llmrouter.binpb").read_bytes())


def test_the_figures_of_the_edge_are_those_of_its_configuration(document: dict[str, Any]) -> None:
    configuration = (resource_dir("envoy") / "envoy.yaml").read_text()
    [limit] = re.findall(r"BodySizeLimit, max_request_bytes: (1048576)}", configuration)
    assert "1 MiB" in document["info"]["description"]
    assert int(limit) == 1 << 20
