"""The examples of the Python client's README and docstrings, run against a real server and a real provider."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import pkgutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llmrouter

if TYPE_CHECKING:
    from client_world import ClientWorld, OwnServer

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
ADDRESS = "127.0.0.1:50051"
"""Of the examples' server."""
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def failures_of(name: str, text: str, names: dict[str, Any]) -> tuple[int, str]:
    """Run the examples in a text, in one namespace; return their number and what went wrong."""
    examples = doctest.DocTestParser().get_doctest(text, names, name, name, 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(examples, out=said.append)
    return len(examples.examples), "".join(said)


async def test_the_readmes_examples_are_true(client_world: ClientWorld, router: OwnServer, tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8").replace(ADDRESS, router.address).replace("```", "")
    names = {
        "TOKEN": router.identity.mint("user", uuid.uuid4()),
        "ADMIN_TOKEN": router.identity.mint("admin"),
        "SERVICE_TOKEN": client_world.service_token,
        "USER_ID": client_world.user_id,
        "FOLDER": tmp_path,
    }
    number, said = await asyncio.to_thread(failures_of, "README.md", text, names)
    assert said == ""
    assert number > 40


async def test_the_docstrings_examples_are_true(router: OwnServer) -> None:
    numbers = {}
    for module in pkgutil.iter_modules(llmrouter.__path__, "llmrouter."):
        if not module.ispkg:
            loaded = importlib.import_module(module.name)
            for found in doctest.DocTestFinder().find(loaded):
                text = (found.docstring or "").replace(ADDRESS, router.address)
                names = (
                    vars(loaded)
                    | vars(llmrouter)
                    | {"TOKEN": router.identity.mint("user", uuid.uuid4()), "asyncio": asyncio}
                )
                number, said = await asyncio.to_thread(failures_of, found.name, text, names)
                assert said == ""
                numbers[found.name] = number
    with_examples = {name for name, number in numbers.items() if number}
    assert {"llmrouter.client.Client", "llmrouter.aio.AsyncClient", "llmrouter.connection.is_local"} <= with_examples
