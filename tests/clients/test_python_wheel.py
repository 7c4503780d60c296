"""What a newcomer installs: the wheel, in an environment with nothing but what it asks for."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import llmrouter
from llmrouter.v2 import routing_service_pb2, routing_service_pb2_grpc

if TYPE_CHECKING:
    from email.message import Message

    from client_world import OwnServer

PROJECT = Path(__file__).parents[2] / "clients" / "python"
TYPED = ["types-grpcio", "types-protobuf"]
LIMIT_S = 120

PROGRAM = """\
import asyncio
from datetime import UTC, datetime

import llmrouter
from llmrouter import ECO, AsyncClient, Attempt, Client, LlmrouterError, RouteRequest, RoutingConfig


def use(client: Client) -> list[str]:
    decision = client.routing.route(power_level=ECO, required_capabilities=["chat"], explain=True)
    reveal_type(decision.primary.composite_score)
    reveal_type(client.settings.update_settings(routing_config=RoutingConfig(cost_weight=1.0)).routing_config)
    reveal_type(client.usage.record_usage(user_id="u", request_id="r", model_id="m", occurred_at=datetime.now(UTC)))
    reveal_type([chunk for chunk in client.usage.export_usage()])
    reveal_type(client.routing.Route(RouteRequest()))
    return [model.display_name for model in client.models.list_models(power_level=ECO)]


async def call(attempt: Attempt) -> int:
    return len(attempt.base_url)


async def use_async(client: AsyncClient) -> None:
    reveal_type([key async for key in client.byok.list_keys()])
    reveal_type((await client.route_and_call(call, RouteRequest())).answer)
    try:
        await client.health.get_provider_health("id", timeout=2)
    except LlmrouterError as error:
        reveal_type(error.retry_after)
        reveal_type(error.fields)


client = Client("localhost:1", token=lambda: "t")
client.routing.route(power_level="ECO")
client.routing.route(eco=True)
client.providers.get_provider()
client.models.list_models().next_page_token
client.usage.record_usage(user_id="u", request_id="r")
AsyncClient("localhost:1", token=7)
client.nothing
"""
REVEALED = [
    "float",
    "llmrouter.v2.settings_pb2.RoutingConfig",
    "llmrouter.v2.usage_service_pb2.RecordUsageResponse",
    "list[bytes]",
    "llmrouter.v2.routing_service_pb2.RouteResponse",
    "list[llmrouter.v2.byok_pb2.ProviderKey]",
    "int",
    "float | None",
    "tuple[llmrouter.errors.FieldViolation, ...]",
]
REFUSED = ["arg-type", "call-arg", "call-arg", "attr-defined", "call-arg", "arg-type", "attr-defined"]
"""What is wrong with the last lines of the program."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel, and the Python that it is installed for."""

    wheel: Path
    python: Path
    site_packages: Path

    @property
    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as content:
            [name] = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
            return Parser().parsestr(content.read(name).decode())


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def lend(distributions: set[str], site_packages: Path) -> None:
    """Let these and all that they need be seen there, as they are installed here, and nothing else."""
    needed, done = set(distributions), set[str]()
    while needed - done:
        name = min(needed - done)
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed.add(requirement.name)
        for top in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            target, source = site_packages / top, Path(str(distribution.locate_file(top)))
            if not target.exists():
                target.symlink_to(source)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("newcomer")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=PROJECT)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "--disable-pip-version-check", "--no-input"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    [site_packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    made = Installed(wheel, python, site_packages)
    requirements = [Requirement(text) for text in made.metadata.get_all("Requires-Dist") or ()]
    lend({requirement.name for requirement in requirements if requirement.marker is None}, site_packages)
    return made


async def test_from_install_to_the_first_decision_in_five_lines(installed: Installed, router: OwnServer) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    newcomer = readme.partition("```python\n")[2].partition("```")[0]
    assert 1 < len([line for line in newcomer.splitlines() if line]) <= 5
    assert "127.0.0.1:50051" in newcomer
    program = newcomer.replace("127.0.0.1:50051", router.address)
    environment = {"TOKEN": router.identity.mint("user")}
    said = run(installed.python, "-I", "-c", program, env=environment, cwd=installed.wheel.parent)
    assert said == "Local vLLM Qwen/Qwen2.5-32B-Instruct\n"


def test_the_wheel_holds_the_client_and_nothing_of_the_server(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as content:
        names = content.namelist()
        sources = {name: content.read(name).decode() for name in names if name.endswith((".py", ".pyi"))}
    assert {name.split("/")[0] for name in names} == {"llmrouter", f"llmrouter-{llmrouter.__version__}.dist-info"}
    assert not [name for name, text in sources.items() if "llmrouter_server" in text]
    here = {f"llmrouter/{path.relative_to(PROJECT / 'llmrouter')}" for path in (PROJECT / "llmrouter").rglob("*.py*")}
    assert {name for name in here if "__pycache__" not in name} == set(sources)
    assert "llmrouter/py.typed" in names
    assert f"llmrouter-{llmrouter.__version__}.dist-info/licenses/LICENSE" in names
    where = run(installed.python, "-I", "-c", "import llmrouter; print(llmrouter.__file__)")
    assert Path(where.strip()).is_relative_to(installed.site_packages)
    seen = run(installed.python, "-I", "-c", "import importlib.util as u; print(u.find_spec('llmrouter_server'))")
    assert seen == "None\n"


def test_the_wheels_metadata_is_true(installed: Installed) -> None:
    metadata = installed.metadata
    assert (metadata["Name"], metadata["Version"]) == ("llmrouter", llmrouter.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    required = {each.name: each for each in map(Requirement, metadata.get_all("Requires-Dist") or ())}
    assert set(required) == {"googleapis-common-protos", "grpcio", "protobuf", *TYPED}
    assert [name for name, each in required.items() if each.marker is not None] == TYPED


def test_what_the_generated_code_refuses_to_work_with_is_not_allowed_by_the_metadata(installed: Installed) -> None:
    required = {each.name: each for each in map(Requirement, installed.metadata.get_all("Requires-Dist") or ())}
    generated = Path(routing_service_pb2.__file__).read_text(encoding="utf-8")
    made_for = re.search(r"# Protobuf Python Version: (\S+)", generated)
    assert made_for is not None
    lowest = {
        "grpcio": Version(routing_service_pb2_grpc.GRPC_GENERATED_VERSION),
        "protobuf": Version(made_for[1]),
    }
    for name, version in lowest.items():
        [bound] = [each.version for each in required[name].specifier if each.operator == ">="]
        assert Version(bound) == version, name
    [below] = [each.version for each in required["protobuf"].specifier if each.operator == "<"]
    assert int(below) == lowest["protobuf"].major + 2  # a major version works with code made for the one before
    assert Version(grpc.__version__) >= lowest["grpcio"]


def test_a_users_program_is_type_checked_strictly(installed: Installed) -> None:
    lend(set(TYPED), installed.site_packages)
    program = installed.wheel.parent / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-error-codes", "--config-file=",
         f"--python-executable={installed.python}", f"--cache-dir={program.parent / 'cache'}", program],
        capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=program.parent,
    )  # fmt: skip
    assert checked.stderr == ""
    assert re.findall(r'Revealed type is "(.*)"', checked.stdout) == REVEALED, checked.stdout
    assert re.findall(r"error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE) == REFUSED, checked.stdout
