"""`llmrouter providers`: the providers of the catalogue, for admins."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmrouter_server.admin import lookup
from llmrouter_server.admin.connection import Server, secret_input, speaks_to_server
from llmrouter_server.admin.table import Column, json_option, moment, number, show_all, show_one, yes_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmrouter.v2.health_pb2 import ProviderHealth
    from llmrouter.v2.provider_pb2 import Provider

COLUMNS: Sequence[Column[Provider]] = (
    Column("NAME", lambda each: each.name),
    Column("TYPE", lambda each: each.provider_type),
    Column("ENABLED", lambda each: yes_no(each.is_enabled)),
    Column("PRIORITY", lambda each: number(each.priority), right=True),
    Column("BYOK", lambda each: yes_no(each.requires_byok)),
    Column("PLATFORM KEY", lambda each: yes_no(each.has_platform_key)),
    Column("MODELS", lambda each: number(each.model_count), right=True),
    Column("ENDPOINT", lambda each: each.api_endpoint),
)


def _status(each: ProviderHealth) -> str:
    from llmrouter.v2.health_pb2 import ProviderStatus

    return ProviderStatus.Name(each.status).removeprefix("PROVIDER_STATUS_")


HEALTH_COLUMNS: Sequence[Column[ProviderHealth]] = (
    Column("NAME", lambda each: each.provider_name),
    Column("STATUS", _status),
    Column("ATTEMPTS", lambda each: number(each.attempts), right=True),
    Column("SUCCESS", lambda each: f"{each.success_rate:.1%}" if each.HasField("success_rate") else "", right=True),
    Column("P50 MS", lambda each: number(each.p50_latency_ms) if each.HasField("p50_latency_ms") else "", right=True),
    Column("P95 MS", lambda each: number(each.p95_latency_ms) if each.HasField("p95_latency_ms") else "", right=True),
    Column("LAST FAILURE", lambda each: moment(each.last_failure_at)),
    Column("NEXT PROBE", lambda each: moment(each.next_probe_at)),
)

PROVIDER = click.argument("name", metavar="PROVIDER")
TYPE = click.option("--type", "provider_type", metavar="WORD", help="The kind of API: openai, groq, local, …")
ENDPOINT = click.option("--endpoint", "api_endpoint", metavar="URL", help="Base URL of its OpenAI-compatible API.")
BYOK = click.option("--byok/--no-byok", "requires_byok", default=None, help="Whether users need keys of their own.")
PRIORITY = click.option(
    "--priority", type=click.IntRange(0, 1000), help="The higher one wins between models of equal score."
)


@click.group()
def providers() -> None:
    """Look at the providers, change them, set the operator's keys. Needs the role admin.

    PROVIDER is a name or a UUID.
    """


@providers.command("list")
@click.option("--enabled", is_flag=True, help="Only enabled ones.")
@json_option
@speaks_to_server("admin")
def list_providers(server: Server, enabled: bool, as_json: bool) -> None:
    """List the providers by descending priority."""
    from llmrouter.v2.provider_service_pb2 import ListProvidersRequest

    with server.connect() as client:
        request = ListProvidersRequest(enabled_only=enabled)
        show_all(lookup.every(client.providers.ListProviders, request, "providers"), COLUMNS, as_json=as_json)


@providers.command()
@PROVIDER
@json_option
@speaks_to_server("admin")
def show(server: Server, name: str, as_json: bool) -> None:
    """Show one provider in full."""
    with server.connect() as client:
        show_one(lookup.provider(client, name), as_json=as_json)


@providers.command()
@json_option
@speaks_to_server("admin")
def health(server: Server, as_json: bool) -> None:
    """Show how well the enabled providers did in the last 15 minutes."""
    from llmrouter.v2.health_service_pb2 import ListProviderHealthRequest

    with server.connect() as client:
        found = lookup.every(client.health.ListProviderHealth, ListProviderHealthRequest(), "providers")
        show_all(found, HEALTH_COLUMNS, as_json=as_json)


@providers.command()
@click.argument("name")
@click.option("--type", "provider_type", metavar="WORD", required=True, help="The kind of API: openai, groq, local, …")
@click.option("--endpoint", "api_endpoint", metavar="URL", required=True, help="Base URL of its API, OpenAI's kind.")
@BYOK
@PRIORITY
@click.option("--disabled", is_flag=True, help="Leave it out of routing for now.")
@json_option
@speaks_to_server("admin")
def create(
    server: Server,
    *,
    name: str,
    disabled: bool,
    as_json: bool,
    **properties: Any,  # noqa: ANN401 - as click makes them
) -> None:
    """Create a provider. Models come after it: see `llmrouter models create`."""
    from llmrouter.v2.provider_service_pb2 import CreateProviderRequest

    request = CreateProviderRequest(name=name, is_enabled=not disabled, **properties)
    with server.connect() as client:
        show_one(client.providers.CreateProvider(request), as_json=as_json)


@providers.command()
@PROVIDER
@click.option("--name", "new_name", help="Another name.")
@TYPE
@ENDPOINT
@BYOK
@PRIORITY
@json_option
@speaks_to_server("admin")
def update(
    server: Server,
    *,
    name: str,
    new_name: str | None,
    as_json: bool,
    **properties: Any,  # noqa: ANN401 - as click makes them
) -> None:
    """Change what is given of a provider, and leave the rest as it is."""
    from llmrouter.v2.provider_service_pb2 import UpdateProviderRequest

    with server.connect() as client:
        provider_id = lookup.provider(client, name).provider_id
        request = UpdateProviderRequest(provider_id=provider_id, name=new_name, **properties)
        show_one(client.providers.UpdateProvider(request), as_json=as_json)


@providers.command()
@PROVIDER
@json_option
@speaks_to_server("admin")
def enable(server: Server, name: str, as_json: bool) -> None:
    """Let a provider take part in routing again."""
    from llmrouter.v2.provider_service_pb2 import UpdateProviderRequest

    with server.connect() as client:
        request = UpdateProviderRequest(provider_id=lookup.provider(client, name).provider_id, is_enabled=True)
        show_one(client.providers.UpdateProvider(request), as_json=as_json)


@providers.command()
@PROVIDER
@json_option
@speaks_to_server("admin")
def disable(server: Server, name: str, as_json: bool) -> None:
    """Leave a provider out of routing until it is enabled again. Nothing is erased."""
    from llmrouter.v2.provider_service_pb2 import DisableProviderRequest

    with server.connect() as client:
        request = DisableProviderRequest(provider_id=lookup.provider(client, name).provider_id)
        show_one(client.providers.DisableProvider(request), as_json=as_json)


@providers.command("set-key")
@PROVIDER
@json_option
@speaks_to_server("admin")
def set_key(server: Server, name: str, as_json: bool) -> None:
    """Store the operator's own key for a provider, in place of the one before.

    The key is the first line of standard input; on a terminal it is asked for.
    """
    from llmrouter.v2.provider_service_pb2 import SetPlatformKeyRequest

    api_key = secret_input("platform key")
    with server.connect() as client:
        provider_id = lookup.provider(client, name).provider_id
        request = SetPlatformKeyRequest(provider_id=provider_id, api_key=api_key)
        show_one(client.providers.SetPlatformKey(request), as_json=as_json)


@providers.command("remove-key")
@PROVIDER
@click.confirmation_option(prompt="Erase the operator's key for this provider?")
@json_option
@speaks_to_server("admin")
def remove_key(server: Server, name: str, as_json: bool) -> None:
    """Erase the operator's own key for a provider."""
    from llmrouter.v2.provider_service_pb2 import DeletePlatformKeyRequest

    with server.connect() as client:
        request = DeletePlatformKeyRequest(provider_id=lookup.provider(client, name).provider_id)
        show_one(client.providers.DeletePlatformKey(request), as_json=as_json)
