"""The running API against its own document: no status, field, header or content type that it does not tell."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import http_json
from contract import document, strict
from fuzz.conftest import CASES, IS_BOUNDED

if TYPE_CHECKING:
    from fuzz.conftest import Target

EXAMPLES = max(2, CASES // 400)
"""How many of each kind for each operation."""
LONGEST_S = 200.0 if IS_BOUNDED else 800.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "ignored_auth",
)
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


def known_ids(target: Target) -> dict[str, list[str]]:
    """Return ids of things that there are, by the name of the field."""
    url, token = target.stack.base_url, target.token("user", target.owner)
    models = http_json.call("GET", f"{url}/models", token=token).json["models"]
    return {
        "model_id": [model["model_id"] for model in models[:3]],
        "provider_id": [model["provider_id"] for model in models[:3]],
        "key_id": [key["key_id"] for key in http_json.call("GET", f"{url}/byok", token=token).json["keys"]],
        "decision_id": [target.ids[-1]],
    }


def knowing(value: Any, ids: dict[str, list[str]]) -> Any:
    """Return the document with ids that there are beside any others, so that not every answer is a 404."""
    if isinstance(value, list):
        return [knowing(each, ids) for each in value]
    if not isinstance(value, dict):
        return value
    told = {key: knowing(each, ids) for key, each in value.items()}
    if "schema" in value and value.get("name") in ids:
        told["schema"] = {"anyOf": [{"enum": ids[value["name"]]}, value["schema"]]}
    return told


async def run(target: Target, folder: Path, told: dict[str, Any], *options: str) -> tuple[int, str]:
    """Return schemathesis's exit code and what it said."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(told))
    command = [
        *(str(SCHEMATHESIS), "run", str(file), "--url", f"http://127.0.0.1:{target.stack.ports.http}"),
        *("--header", f"Authorization: Bearer {target.token('admin', target.owner)}"),
        *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--mode", "all"),
        *("--checks", ",".join(CHECKS), "--workers", "2", "--no-color", "--continue-on-failure"),
        *(("--generation-deterministic",) if IS_BOUNDED else ("--generation-database", "none")),
        *("--request-timeout", "20", *options),
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=PIPE, stderr=STDOUT)
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LONGEST_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@pytest.mark.timeout(900)
async def test_every_answer_is_as_the_document_says(
    target: Target, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    told = knowing(strict(document()), known_ids(target))
    seed = pytestconfig.getoption("--hypothesis-seed")
    code, output = await run(target, tmp_path, told, *(("--seed", seed) if seed and not IS_BOUNDED else ()))
    assert code == 0, output[-20_000:]
    operations = sum(len(item) for item in told["paths"].values())
    assert f"Tested: {operations}" in output, output[-3000:]


async def test_a_status_or_a_field_that_the_document_lacks_would_be_found(target: Target, tmp_path: Path) -> None:
    told = strict(document())
    settings = told["components"]["schemas"]["Settings"]
    del settings["properties"]["on_budget_exceeded"]
    settings["required"].remove("on_budget_exceeded")
    del told["paths"]["/api/v2/llm/models/{model_id}"]["get"]["responses"]["404"]
    only = [part for name in ("getSettings", "getModel") for part in ("--include-operation-id", name)]
    code, output = await run(target, tmp_path, told, *only)
    assert code == 1, output
    assert "Undocumented status code: 1" in output, output
    assert "Response violates schema: 1" in output, output
