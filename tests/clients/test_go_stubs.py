"""The committed Go stubs are those of the protos; known also where there is no Go."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.api import annotations_pb2, field_behavior_pb2  # noqa: F401 - else their options are compared as bytes
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from llmrouter import service_config

if TYPE_CHECKING:
    from google.protobuf.message import Message

TOP = Path(__file__).resolve().parents[2]
STUBS = TOP / "clients" / "go" / "llmrouterv2"
CLIENT = TOP / "clients" / "go" / "client.go"
PROTOS = sorted((TOP / "proto" / "llmrouter" / "v2").glob("*.proto"))
MADE_EVERYWHERE = TOP / "envoy" / "llmrouter.binpb"
"""What `make check-generated` compares with the protos also without Go."""


def descriptor_in(source: str) -> Message:
    """Read the file descriptor that a Go file holds as a string; its escapes are those of Python's bytes too."""
    found = re.search(r'_rawDesc = "" \+\n((?:\t".*"(?: \+)?\n)+)', source)
    assert found
    parts = re.findall(r'^\t(".*")(?: \+)?$', found[1], re.MULTILINE)
    raw = b"".join(ast.literal_eval("b" + part) for part in parts)
    return FileDescriptorProto.FromString(raw)


@pytest.mark.parametrize("proto", PROTOS, ids=lambda proto: proto.stem)
def test_the_go_stubs_are_up_to_date(proto: Path) -> None:
    every = FileDescriptorSet.FromString(MADE_EVERYWHERE.read_bytes()).file
    [wanted] = [file for file in every if file.name == f"llmrouter/v2/{proto.name}"]
    held = descriptor_in((STUBS / f"{proto.stem}.pb.go").read_text())
    held.ClearField("options")  # the Go package, which the protos do not name
    assert held == wanted, "run make generate where Go is"


def test_there_are_no_stubs_but_those_of_the_protos() -> None:
    services = {proto.stem for proto in PROTOS if proto.stem.endswith("_service")}
    wanted = {f"{proto.stem}.pb.go" for proto in PROTOS} | {f"{service}_grpc.pb.go" for service in services}
    assert {file.name for file in STUBS.iterdir()} == wanted


def test_what_is_called_once_is_the_same_as_in_python() -> None:
    config = CLIENT.read_text().partition("const serviceConfig = `")[2].partition("]}`\n")[0]
    *repeated, once = config.split('{"name": [')
    named = {f"/{service}/{method}" for service, method in re.findall(r'"service": "(\S+)", "method": "(\w+)"', once)}
    assert "retried" not in once
    assert all("retried" in each for each in repeated[1:])
    assert named == {rpc for rpc in service_config.OF_METHOD if not service_config.may_repeat(rpc)}


def test_every_client_comes_with_the_license() -> None:
    for client in ("go", "python", "typescript"):
        assert (TOP / "clients" / client / "LICENSE").read_bytes() == (TOP / "LICENSE").read_bytes()
