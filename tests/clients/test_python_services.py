"""Every RPC of the protos is a method of both Python clients, with its fields, its types and its rules."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import llmrouter.v2
from llmrouter import AsyncClient, Client, service_config
from llmrouter.v2.byok_service_pb2 import StoreKeyRequest
from llmrouter.values import struct_of, timestamp_of

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

OPTIONS = ["timeout", "headers"]
"""What every method takes besides the request's fields."""


def rpcs() -> dict[str, MethodDescriptor]:
    found = {}
    for module in pkgutil.iter_modules(llmrouter.v2.__path__):
        if module.name.endswith("_service_pb2"):
            descriptor = importlib.import_module(f"llmrouter.v2.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}": method for method in service.methods}
    return found


def methods(client: Client | AsyncClient) -> dict[str, object]:
    """Return the clients' methods by the RPC that each is for: the one that its class and name say."""
    found = {}
    for service in vars(client).values():
        kind = type(service)
        if kind.__module__.startswith("llmrouter.services."):
            for name, method in inspect.getmembers(service, inspect.ismethod):
                rpc = "".join(word.capitalize() for word in name.split("_"))
                if not name.startswith("_"):
                    found[f"/llmrouter.v2.{kind.__name__.removeprefix('Async')}/{rpc}"] = method
    return found


@pytest.fixture(params=[Client, AsyncClient])
async def client(request: pytest.FixtureRequest) -> Client | AsyncClient:
    made: Client | AsyncClient = request.param("localhost:1", token="t")
    return made


def test_every_rpc_has_its_method_and_every_method_its_rpc(client: Client | AsyncClient) -> None:
    assert set(methods(client)) == set(rpcs())
    assert len(rpcs()) > 30


def test_every_method_takes_exactly_the_fields_of_its_request(client: Client | AsyncClient) -> None:
    for rpc, method in methods(client).items():
        parameters = inspect.signature(method).parameters  # type: ignore[arg-type]
        fields = [field.name for field in rpcs()[rpc].input_type.fields]
        assert sorted(parameters) == sorted([*fields, *OPTIONS]), rpc
        assert not [name for name, each in parameters.items() if each.annotation in ("", "Any", "object")], rpc


def test_every_rpc_can_be_called_with_its_messages_too(client: Client | AsyncClient) -> None:
    services = [each for each in vars(client).values() if type(each).__module__.startswith("llmrouter.services.")]
    names = {name for service in services for name in vars(service)}
    assert names == {method.name for method in rpcs().values()}


async def test_both_clients_have_the_same_methods() -> None:
    def shapes(client: Client | AsyncClient) -> dict[str, dict[str, str]]:
        return {
            rpc: {name: each.annotation for name, each in inspect.signature(method).parameters.items()}  # type: ignore[arg-type]
            for rpc, method in methods(client).items()
        }

    assert shapes(Client("localhost:1", token="t")) == shapes(AsyncClient("localhost:1", token="t"))


def test_lists_are_pages_and_exports_are_bytes(client: Client | AsyncClient) -> None:
    prefix = "Async" if isinstance(client, AsyncClient) else ""
    for rpc, method in methods(client).items():
        returned = inspect.signature(method).return_annotation  # type: ignore[arg-type]
        name = rpc.rpartition("/")[2]
        if name.startswith("List"):
            assert re.fullmatch(rf"{prefix}Pages\[\w+, {name}Response\]", returned)
        elif rpcs()[rpc].server_streaming:
            assert returned.startswith(f"{prefix}Generator[bytes, None")
        else:
            expected = rpcs()[rpc].output_type.name if rpcs()[rpc].output_type.fields else "None"
            assert returned == expected


def test_what_the_protos_say_of_an_rpc_and_its_fields_is_in_its_docstring(client: Client | AsyncClient) -> None:
    for rpc, method in methods(client).items():
        documented = inspect.getdoc(method) or ""
        assert len(documented) > 20
        for field in rpcs()[rpc].input_type.fields:
            assert re.search(rf"^{field.name}: \S", documented, re.MULTILINE), (rpc, field.name)


def test_every_rpc_has_its_rules_and_every_rule_its_rpc() -> None:
    names = [name for config in service_config.METHOD_CONFIGS for name in config["name"]]
    named = [f"/{name['service']}/{name['method']}" for name in names]
    assert sorted(named) == sorted(rpcs())


def test_what_creates_deletes_or_compares_an_etag_is_not_repeated() -> None:
    once = {rpc for rpc in rpcs() if not service_config.may_repeat(rpc)}
    for rpc, method in rpcs().items():
        has_etag = "etag" in method.input_type.fields_by_name
        assert (rpc in once) == (has_etag or method.name.startswith("Create") or method.name == "DeleteKey"), rpc
    repeated = [name for config in json.loads(service_config.of_channel())["methodConfig"] for name in config["name"]]
    assert {f"/{each['service']}/{each['method']}" for each in repeated} == set(rpcs()) - once


def test_a_call_may_take_ten_seconds_and_an_export_five_minutes() -> None:
    export = "/llmrouter.v2.UsageService/ExportUsage"
    assert service_config.timeout_s(export) == 300
    assert {service_config.timeout_s(rpc) for rpc in rpcs() if rpc != export} == {10}


def test_json_becomes_a_struct_and_a_moment_a_timestamp() -> None:
    request = StoreKeyRequest(metadata=struct_of({"team": "search", "tags": ["a", None, True], "limit": {"usd": 2.5}}))
    assert request.metadata["team"] == "search"
    assert list(request.metadata["tags"]) == ["a", None, True]
    assert request.metadata["limit"]["usd"] == 2.5
    assert struct_of(None) is None
    assert timestamp_of(None) is None
    moment = timestamp_of(datetime(2026, 5, 1, 12, 30, 0, 5000, tzinfo=UTC))
    assert moment is not None
    assert moment.ToJsonString() == "2026-05-01T12:30:00.005Z"
    with pytest.raises(ValueError, match="without a time zone"):
        timestamp_of(datetime(2026, 5, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="Unexpected type"):
        struct_of({"no": object()})
