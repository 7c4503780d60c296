"""How a command reaches a server: its options, its token, and what its exit code says when that fails."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

import contextlib
import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from llmrouter_server.admin.options import fail, home_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmrouter import Client, LlmrouterError
    from llmrouter_server.runtime.dev_identity import RoleName

REFUSED, WRONG_USE, NOT_REACHED, NOT_ALLOWED = 1, 2, 3, 4
"""Exit codes: the server refused, the command line is wrong, no answer, the token is not good for it."""
EXIT_CODES = "Exits with 1 when the server refuses, 3 when it does not answer, 4 when the token is not good for it."
TOKEN_VARIABLE = "LLMROUTER_TOKEN"  # noqa: S105 - its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server that a command speaks to."""

    address: str
    role: RoleName
    """Of the development token, when the local stack is asked and no other token is given."""
    home: Path
    token_file: Path | None
    insecure: bool
    ca_file: Path | None

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """Lend a client; says why and exits when a call fails."""
        from llmrouter import Client, LlmrouterError

        try:
            with Client(
                self.address,
                token=self._token(),
                insecure=self.insecure,
                root_certificates=None if self.ca_file is None else self.ca_file.read_bytes(),
            ) as client:
                yield client
        except LlmrouterError as error:
            self._fail(error)
        except (ValueError, OSError) as error:
            fail(str(error), WRONG_USE)

    def _token(self) -> str:
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        given = os.environ.get(TOKEN_VARIABLE, "").strip()
        if given:
            return given
        from llmrouter.connection import is_local

        if not is_local(self.address):
            fail(f"no token for {self.address}: set {TOKEN_VARIABLE}, or give --token-file", WRONG_USE)
        from llmrouter_server.runtime.dev_identity import DevIdentity, IdentityError

        try:
            return DevIdentity.load(self.home.absolute() / "identity").mint(self.role)
        except IdentityError as error:
            fail(f"no token: set {TOKEN_VARIABLE}, or give --token-file; {error}", WRONG_USE)

    def _fail(self, error: LlmrouterError) -> NoReturn:
        from llmrouter import DeadlineExceeded, RoleRequired, Unauthenticated, Unavailable

        if isinstance(error, (Unavailable, DeadlineExceeded)) and not error.reason:
            hint = f"no llmrouter answers at {self.address}: run llmrouter up here, or name a server with --server"
            fail(f"{hint} ({error.message.splitlines()[0]})", NOT_REACHED)
        if isinstance(error, (Unavailable, DeadlineExceeded)):
            fail(str(error), NOT_REACHED)
        if isinstance(error, Unauthenticated):
            fail(f"{error}: is the token for {self.address}, and still good?", NOT_ALLOWED)
        fail(str(error), NOT_ALLOWED if isinstance(error, RoleRequired) else REFUSED)


_OPTIONS = (
    click.option(
        "--server",
        "address",
        metavar="HOST:PORT",
        default="127.0.0.1:50051",
        envvar="LLMROUTER_SERVER",
        show_default=True,
        show_envvar=True,
        help="The gRPC server: this machine's in plain text, any other over TLS.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help=f"File with the token.  [default: the variable {TOKEN_VARIABLE}; for the local stack, one made for you]",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        envvar="LLMROUTER_INSECURE",
        show_envvar=True,
        help="Plain text, the token too, to any machine: only in a network that encrypts by itself.",
    ),
    click.option(
        "--ca-file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        envvar="LLMROUTER_CA_FILE",
        show_envvar=True,
        help="Certificates (PEM) of the authorities to trust.  [default: the system's]",
    ),
    home_option,
)


def speaks_to_server(role: RoleName) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options above, and the Server made of them for its first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**given: Any) -> None:  # noqa: ANN401 - as click makes them
            ours = {name: given.pop(name) for name in ("address", "home", "token_file", "insecure", "ca_file")}
            command(Server(role=role, **ours), **given)

        call.__doc__ = f"{(command.__doc__ or '').rstrip()}\n\n    {EXIT_CODES}\n    "
        for option in reversed(_OPTIONS):
            call = option(call)
        return call

    return decorate


def secret_input(what: str) -> str:
    """Read a secret from standard input, or ask for it on a terminal; never from the command line, which `ps` shows."""
    if sys.stdin.isatty():
        asked: str = click.prompt(what, hide_input=True, err=True)
        return asked.strip()
    given = sys.stdin.readline().strip()
    if not given:
        fail(f"no {what} on standard input", WRONG_USE)
    return given
