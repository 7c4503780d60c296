"""The OpenAPI document as a contract: what was asked and what was answered must be what it says.

Answers are held to it more strictly than clients should: a field that it does not name is a fault.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from jsonschema import FormatChecker
from openapi_schema_validator import OAS31Validator

from llmrouter_server.runtime.resources import resource_dir

if TYPE_CHECKING:
    from http_json import Answer

FORMATS = FormatChecker(["uuid", "date", "date-time"])
API = "/api/v2/llm"


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((resource_dir("envoy") / "openapi.json").read_text())
    return loaded


class Contract:
    """Holds exchanges to the document."""

    def __init__(self) -> None:
        self.document = document()
        self._strict = strict(self.document)

    def hold(self, method: str, path: str, body: Any, answer: Answer) -> None:
        """Check an exchange with a path of the document; an answer below 300 means that the request was good, too."""
        found = self.operation(method, path)
        if found is None:
            assert answer.status == 404, (method, path, answer)
            return
        template, operation = found
        if answer.status < 300:
            self._hold_request(template, operation, path, body)
        self._hold_answer(operation, answer)

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]] | None:
        """Return the path's template and the operation; literal segments win over variable ones."""
        sought = urlsplit(path).path
        matching = [
            template
            for template, item in self.document["paths"].items()
            if method.lower() in item and re.fullmatch(re.sub(r"{\w+}", "[^/:]+", template), sought)
        ]
        if not matching:
            return None
        template = min(matching, key=lambda each: each.count("{"))
        return template, self.document["paths"][template][method.lower()]

    def _hold_request(self, template: str, operation: dict[str, Any], path: str, body: Any) -> None:
        given = dict(parse_qsl(urlsplit(path).query, keep_blank_values=True))
        known = {each["name"]: each for each in operation.get("parameters", [])}
        names = re.findall(r"{(\w+)}", template)
        match = re.fullmatch(re.sub(r"{\w+}", "([^/:]+)", template), urlsplit(path).path)
        assert match is not None
        for name, text in given.items() | dict(zip(names, match.groups(), strict=True)).items():
            schema = known[name]["schema"]
            self.check(json.loads(text) if schema.get("type") in ("integer", "boolean") else text, schema, name)
        if body is None:
            assert not operation.get("requestBody", {}).get("required"), operation["operationId"]
        else:
            sent = json.loads(body) if isinstance(body, str) else body
            content = operation["requestBody"]["content"]["application/json"]
            self.check(sent, content["schema"], f"body of {operation['operationId']}")

    def _hold_answer(self, operation: dict[str, Any], answer: Answer) -> None:
        name = operation["operationId"]
        assert str(answer.status) in operation["responses"], f"{name} does not say that it answers {answer.status}"
        response = self.resolved(operation["responses"][str(answer.status)])
        for header, described in response["headers"].items():
            if self.resolved(described).get("required"):
                assert header in answer.headers, f"{name} {answer.status} lacks {header}"
        kind = answer.headers["content-type"].partition(";")[0]
        schema = response["content"][kind]["schema"]
        self.check(answer.json, schema, f"{name} {answer.status}", is_answer=True)

    def check(self, value: Any, schema: dict[str, Any], what: str, *, is_answer: bool = False) -> None:
        source = self._strict if is_answer else self.document
        whole = (strict(schema) if is_answer else schema) | {"components": source["components"]}
        problems = [
            f"{what} at {error.json_path}: {error.message[:300]}"
            for error in OAS31Validator(whole, format_checker=FORMATS).iter_errors(value)
        ]
        assert not problems, "\n".join(problems)

    def resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            found = self.document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value


def strict(value: Any) -> Any:
    """Return the schemas with every object closed that has named fields and does not say that it is open."""
    if isinstance(value, list):
        return [strict(each) for each in value]
    if not isinstance(value, dict):
        return value
    closed = {key: strict(each) for key, each in value.items()}
    is_object = value.get("type") == "object" and "properties" in value
    return {"additionalProperties": False} | closed if is_object else closed
