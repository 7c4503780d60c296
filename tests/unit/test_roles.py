from __future__ import annotations

import importlib
import pkgutil

import llmrouter.v2
from llmrouter_server.app import SERVICE_NAMES
from llmrouter_server.runtime.roles import METHOD_ROLES


def rpcs() -> set[str]:
    found = set()
    for module in pkgutil.iter_modules(llmrouter.v2.__path__):
        if module.name.endswith("_service_pb2"):
            descriptor = importlib.import_module(f"llmrouter.v2.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_rpc_has_its_roles_and_every_row_its_rpc() -> None:
    assert set(METHOD_ROLES) == rpcs()
    assert all(METHOD_ROLES.values())


def test_every_service_is_served() -> None:
    assert set(SERVICE_NAMES) == {method.split("/")[1] for method in rpcs()}
