"""What clients that are out there were built with stays as it is, and whoever changes it is told.

`promised.binpb` is the API as clients have it. What is added since needs no new one; a release makes one, so that its
additions are promised too: `.venv/bin/buf build --exclude-source-info -o tests/clients/promised.binpb`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

TOP = Path(__file__).resolve().parents[2]
PROMISED = Path(__file__).parent / "promised.binpb"
NOW = TOP / "envoy" / "llmrouter.binpb"
BUF = Path(sys.executable).with_name("buf")


def buf_breaking(folder: Path) -> str:
    """Return what buf, by our rules, has against the protos in a folder."""
    done = subprocess.run(
        [BUF, "breaking", "--against", PROMISED], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert (done.returncode == 0) is (done.stdout == "")
    return done.stdout


def paths(descriptors: bytes) -> dict[str, str]:
    """Return where each RPC is found in the JSON API, and how."""
    return {
        f"{file.package}.{service.name}.{method.name}": str(method.options.Extensions[annotations_pb2.http])
        for file in FileDescriptorSet.FromString(descriptors).file
        for service in file.service
        for method in service.method
    }


def test_nothing_that_clients_have_was_changed() -> None:
    assert buf_breaking(TOP) == ""
    promised, now = paths(PROMISED.read_bytes()), paths(NOW.read_bytes())
    assert {rpc: now.get(rpc) for rpc in promised} == promised
    assert promised["llmrouter.v2.RoutingService.Route"] == 'post: "/api/v2/llm/route"\nbody: "*"\n'


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        (
            "routing_service",
            "  uint32 min_context_tokens = 5 [",
            '  reserved 5; reserved "min_context_tokens"; //[',
            "min_context_tokens",
        ),
        ("routing_service", "rpc GetDecision(", "rpc ReadDecision(", "GetDecision"),
        ("audit_service", "service AuditService", "service LogService", "AuditService"),
        ("routing_service", "string task_type = 2 [", 'string task_type = 2 [json_name = "kind", ', "json_name"),
        ("routing_service", "string task_type = 2 [", "string task_kind = 2 [", "task_kind"),
        ("routing_service", "string task_type = 2 [", "uint32 task_type = 2 [", "type"),
        ("routing_service", "returns (Decision)", "returns (RouteResponse)", "response type"),
        ("settings_service", "(GetSettingsRequest)", "(UpdateSettingsRequest)", "request type"),
        ("power_level", "PRECISION = 3", "BEST = 3", "PRECISION"),
    ],
    ids=lambda value: value.strip(" ([") if isinstance(value, str) else None,
)
def test_a_change_that_would_break_a_client_is_told(
    tmp_path: Path, file: str, before: str, after: str, told: str
) -> None:
    shutil.copytree(TOP / "proto", tmp_path / "proto")
    shutil.copy(TOP / "buf.yaml", tmp_path)
    proto = tmp_path / "proto" / "llmrouter" / "v2" / f"{file}.proto"
    source = proto.read_text(encoding="utf-8")
    assert before in source
    proto.write_text(source.replace(before, after), encoding="utf-8")
    assert told in buf_breaking(tmp_path)
