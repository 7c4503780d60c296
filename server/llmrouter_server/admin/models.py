"""`llmrouter models`: the models of the catalogue."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmrouter_server.admin import lookup
from llmrouter_server.admin.connection import Server, speaks_to_server
from llmrouter_server.admin.level import LEVEL, level_name, level_of
from llmrouter_server.admin.table import Column, json_option, money, number, show_all, show_one, yes_no

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmrouter.v2.model_pb2 import Model

MODEL = click.argument("name", metavar="MODEL")
OF_PROVIDER = click.option("--provider", metavar="PROVIDER", help="Whose model; needed where several have the name.")


COLUMNS: Sequence[Column[Model]] = (
    Column("MODEL", lambda each: each.model_name),
    Column("PROVIDER", lambda each: each.provider_name),
    Column("LEVEL", lambda each: level_name(each.power_level)),
    Column("$/1M IN", lambda each: money(each.input_cost_per_1m), right=True),
    Column("$/1M OUT", lambda each: money(each.output_cost_per_1m), right=True),
    Column("LATENCY MS", lambda each: number(each.avg_latency_ms), right=True),
    Column("QUALITY", lambda each: f"{each.quality_score:.2f}", right=True),
    Column("CONTEXT", lambda each: number(each.max_context_tokens), right=True),
    Column("BYOK", lambda each: yes_no(each.requires_byok)),
    Column("ENABLED", lambda each: yes_no(each.is_enabled)),
)

_PROPERTIES = (
    click.option("--display-name", metavar="NAME", help="The name to show to people."),
    click.option("--input-cost", "input_cost_per_1m", type=float, metavar="USD", help="For a million input tokens."),
    click.option("--output-cost", "output_cost_per_1m", type=float, metavar="USD", help="For a million output tokens."),
    click.option("--latency", "avg_latency_ms", type=int, metavar="MS", help="Typical latency of an answer."),
    click.option("--quality", "quality_score", type=float, metavar="0-10", help="Quality rating."),
    click.option("--context", "max_context_tokens", type=int, metavar="TOKENS", help="Prompt and answer together."),
    click.option(
        "--capability",
        "capabilities",
        multiple=True,
        type=click.Choice(["chat", "code", "vision", "tools", "json", "reasoning"]),
        help="What it can do; repeatable.",
    ),
    click.option("--streaming/--no-streaming", "supports_streaming", default=None, help="Whether it can stream."),
)


def _properties(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_PROPERTIES):
        command = option(command)
    return command


@click.group()
def models() -> None:
    """Look at the models and change them. All but `list` needs the role admin.

    MODEL is a name, with --provider where several providers have it, or a UUID.
    """


@models.command("list")
@click.option("--level", type=LEVEL, help="Only of this power level.")
@click.option("--provider", metavar="PROVIDER", help="Only of this enabled provider, a name or a UUID.")
@click.option("--all", "include_disabled", is_flag=True, help="Also disabled ones. Needs the role admin.")
@json_option
@speaks_to_server("admin")
def list_models(server: Server, level: str | None, provider: str | None, include_disabled: bool, as_json: bool) -> None:
    """List the models by power level, provider and name."""
    from llmrouter.v2.model_service_pb2 import ListModelsRequest

    with server.connect() as client:
        request = ListModelsRequest(power_level=level_of(level), include_disabled=include_disabled)
        if provider is not None:
            request.provider_id = lookup.enabled_provider_id(client, provider)
        show_all(lookup.every(client.models.ListModels, request, "models"), COLUMNS, as_json=as_json)


@models.command()
@MODEL
@OF_PROVIDER
@json_option
@speaks_to_server("admin")
def show(server: Server, name: str, provider: str | None, as_json: bool) -> None:
    """Show one model in full."""
    with server.connect() as client:
        show_one(lookup.model(client, name, provider), as_json=as_json)


@models.command()
@click.argument("provider")
@MODEL
@click.option("--level", type=LEVEL, required=True, help="Its power level.")
@_properties
@click.option("--disabled", is_flag=True, help="Leave it out of routing for now.")
@json_option
@speaks_to_server("admin")
def create(
    server: Server,
    *,
    provider: str,
    name: str,
    level: str,
    disabled: bool,
    as_json: bool,
    **properties: Any,  # noqa: ANN401 - as click makes them
) -> None:
    """Create a model: MODEL is what the PROVIDER's own API calls it."""
    from llmrouter.v2.model_service_pb2 import CreateModelRequest

    with server.connect() as client:
        request = CreateModelRequest(
            provider_id=lookup.provider(client, provider).provider_id,
            model_name=name,
            power_level=level_of(level),
            is_enabled=not disabled,
            **properties,
        )
        show_one(client.models.CreateModel(request), as_json=as_json)


@models.command()
@MODEL
@OF_PROVIDER
@click.option("--name", "new_name", help="Another name, as the provider's API has it.")
@click.option("--level", type=LEVEL, help="Another power level.")
@_properties
@json_option
@speaks_to_server("admin")
def update(
    server: Server,
    *,
    name: str,
    provider: str | None,
    new_name: str | None,
    level: str | None,
    as_json: bool,
    **properties: Any,  # noqa: ANN401 - as click makes them
) -> None:
    """Change what is given of a model, and leave the rest as it is.

    Capabilities are replaced as a whole. What was used before keeps its price.
    """
    from llmrouter.v2.model_service_pb2 import UpdateModelRequest

    with server.connect() as client:
        request = UpdateModelRequest(
            model_id=lookup.model(client, name, provider).model_id,
            model_name=new_name,
            power_level=level_of(level),
            **properties,
        )
        show_one(client.models.UpdateModel(request), as_json=as_json)


@models.command()
@MODEL
@OF_PROVIDER
@json_option
@speaks_to_server("admin")
def enable(server: Server, name: str, provider: str | None, as_json: bool) -> None:
    """Let a model take part in routing again."""
    from llmrouter.v2.model_service_pb2 import UpdateModelRequest

    with server.connect() as client:
        request = UpdateModelRequest(model_id=lookup.model(client, name, provider).model_id, is_enabled=True)
        show_one(client.models.UpdateModel(request), as_json=as_json)


@models.command()
@MODEL
@OF_PROVIDER
@json_option
@speaks_to_server("admin")
def disable(server: Server, name: str, provider: str | None, as_json: bool) -> None:
    """Leave a model out of routing until it is enabled again. Nothing is erased."""
    from llmrouter.v2.model_service_pb2 import DisableModelRequest

    with server.connect() as client:
        request = DisableModelRequest(model_id=lookup.model(client, name, provider).model_id)
        show_one(client.models.DisableModel(request), as_json=as_json)
