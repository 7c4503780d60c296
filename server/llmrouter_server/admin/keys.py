"""`llmrouter keys`: one's own provider keys."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from llmrouter_server.admin import lookup
from llmrouter_server.admin.connection import REFUSED, Server, secret_input, speaks_to_server
from llmrouter_server.admin.table import Column, json_option, moment, show_all, show_one, yes_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter.v2.byok_pb2 import ProviderKey

COLUMNS: Sequence[Column[ProviderKey]] = (
    Column("PROVIDER", lambda each: each.provider_name),
    Column("KEY", lambda each: f"{each.key_prefix}…"),
    Column("ACTIVE", lambda each: yes_no(each.is_active)),
    Column("REFUSED", lambda each: moment(each.refused_at)),
    Column("CHANGED", lambda each: moment(each.updated_at)),
    Column("ID", lambda each: each.key_id),
)

KEY = click.argument("name", metavar="KEY")


@click.command("list")
@json_option
@speaks_to_server("user")
def list_keys(server: Server, as_json: bool) -> None:
    """List your own provider keys; never the keys themselves."""
    from llmrouter.v2.byok_service_pb2 import ListKeysRequest

    with server.connect() as client:
        show_all(lookup.every(client.byok.ListKeys, ListKeysRequest(), "keys"), COLUMNS, as_json=as_json)


@click.command()
@click.argument("provider")
@json_option
@speaks_to_server("user")
def store(server: Server, provider: str, as_json: bool) -> None:
    """Store your own key for a PROVIDER, a name or a UUID, in place of the one before, and activate it.

    The key is the first line of standard input; on a terminal it is asked for.
    """
    from llmrouter.v2.byok_service_pb2 import StoreKeyRequest

    api_key = secret_input("key")
    with server.connect() as client:
        request = StoreKeyRequest(provider_id=lookup.enabled_provider_id(client, provider), api_key=api_key)
        show_one(client.byok.StoreKey(request), as_json=as_json)


@click.command()
@KEY
@json_option
@speaks_to_server("user")
def verify(server: Server, name: str, as_json: bool) -> None:
    """Try one of your keys at its provider. KEY is the provider's name, or the key's UUID.

    Exits with 1 also when the provider refuses the key or cannot be asked.
    """
    from llmrouter.v2.byok_service_pb2 import KEY_VERDICT_WORKS, VerifyKeyRequest

    with server.connect() as client:
        found = client.byok.VerifyKey(VerifyKeyRequest(key_id=lookup.key(client, name).key_id))
    show_one(found, as_json=as_json)
    sys.exit(0 if found.verdict == KEY_VERDICT_WORKS else REFUSED)


@click.command()
@KEY
@json_option
@speaks_to_server("user")
def activate(server: Server, name: str, as_json: bool) -> None:
    """Let routing use one of your keys again. KEY is the provider's name, or the key's UUID."""
    _set_active(server, name, is_active=True, as_json=as_json)


@click.command()
@KEY
@json_option
@speaks_to_server("user")
def deactivate(server: Server, name: str, as_json: bool) -> None:
    """Keep one of your keys, but out of routing. KEY is the provider's name, or the key's UUID."""
    _set_active(server, name, is_active=False, as_json=as_json)


@click.command()
@KEY
@click.confirmation_option(prompt="Erase this key for good?")
@speaks_to_server("user")
def delete(server: Server, name: str) -> None:
    """Erase one of your keys for good. KEY is the provider's name, or the key's UUID."""
    from llmrouter.v2.byok_service_pb2 import DeleteKeyRequest

    with server.connect() as client:
        client.byok.DeleteKey(DeleteKeyRequest(key_id=lookup.key(client, name).key_id))


def _set_active(server: Server, name: str, *, is_active: bool, as_json: bool) -> None:
    from llmrouter.v2.byok_service_pb2 import UpdateKeyRequest

    with server.connect() as client:
        request = UpdateKeyRequest(key_id=lookup.key(client, name).key_id, is_active=is_active)
        show_one(client.byok.UpdateKey(request), as_json=as_json)
