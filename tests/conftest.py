"""A real Postgres, server and Envoy for the tests: started once, on free ports, and always stopped."""

from __future__ import annotations

import itertools
import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import pytest
from hypothesis import settings

from llmrouter_server.runtime import migrations
from llmrouter_server.runtime.dev_identity import ROLES, RoleName
from llmrouter_server.runtime.local_stack import LocalStack, Ports
from llmrouter_server.runtime.postgres import DATABASE, EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

TEMPLATE = "template_migrated"

settings.register_profile("unhurried", settings.default, deadline=None)  # an example takes longer on a busy machine
settings.load_profile("unhurried")


class User(NamedTuple):
    id: uuid.UUID
    token: str


def make_open_folder() -> Path:
    """Make a folder that other accounts can go through, unlike pytest's own: as root, Postgres runs as nobody."""
    folder = Path(tempfile.mkdtemp(prefix="llmrouter-test-"))
    folder.chmod(0o711)
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = make_open_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    """An empty Postgres for the whole run; take a database of your own from the fixtures below."""
    folder = make_open_folder()
    server = EmbeddedPostgres(folder / "postgres", durable=False)
    await server.start()
    yield server
    await server.server.stop((signal.SIGQUIT, 5.0))  # at once: nobody wants what it would still write down
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def empty_database(postgres: EmbeddedPostgres) -> Callable[[], Awaitable[str]]:
    """Make databases: each call returns the URL of a new one, with nothing in it."""
    numbers = itertools.count(1)
    return lambda: _create_database(postgres, f"empty_{next(numbers)}", template="template0")


@pytest.fixture(scope="session")
async def migrated_database(postgres: EmbeddedPostgres) -> Callable[[], Awaitable[str]]:
    """Make databases: each call returns the URL of a new one, migrated and seeded."""
    numbers = itertools.count(1)
    url = await _create_database(postgres, TEMPLATE, template="template0")
    await migrations.migrate(url, say=lambda _: None)
    return lambda: _create_database(postgres, f"migrated_{next(numbers)}", template=TEMPLATE)


async def _create_database(postgres: EmbeddedPostgres, name: str, *, template: str) -> str:
    connection = await asyncpg.connect(postgres.url, timeout=10)
    try:
        await connection.execute(f"create database {name} template {template}", timeout=30)
    finally:
        await connection.close(timeout=5)
    return postgres.url.removesuffix(DATABASE) + name


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalStack]:
    """The whole product with a Postgres of its own. A test that stops a part of it starts it again."""
    folder = make_open_folder()
    free = Ports(http=0, grpc=0, metrics=0)
    async with LocalStack(folder / "stack", ports=free, durable=False) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tokens(stack: LocalStack) -> Mapping[RoleName, str]:
    """A token of each role."""
    return {role: stack.identity.mint(role) for role in ROLES}


@pytest.fixture(scope="session")
def new_user(stack: LocalStack) -> Callable[[], User]:
    """Make users whom nobody has seen before."""

    def make(role: RoleName = "user") -> User:
        user_id = uuid.uuid4()
        return User(user_id, stack.identity.mint(role, user_id))

    return make
