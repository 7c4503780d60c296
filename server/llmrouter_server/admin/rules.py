"""`llmrouter rules`: the operator's routing rules, for admins."""

# ruff: noqa: PLC0415 - what speaks gRPC is imported when a command runs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmrouter_server.admin import lookup
from llmrouter_server.admin.connection import Server, speaks_to_server
from llmrouter_server.admin.level import LEVEL, level_name, level_of
from llmrouter_server.admin.options import three_weights
from llmrouter_server.admin.table import Column, json_option, number, show_all, show_one, yes_no

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmrouter import Client
    from llmrouter.v2.routing_rule_pb2 import RoutingRule

RULE = click.argument("name", metavar="RULE")

_PROPERTIES = (
    click.option("--condition", metavar="CEL", help="When it holds, in CEL; '' is always."),
    click.option("--priority", type=click.IntRange(0, 1000), help="Those with the higher one are tried first."),
    click.option("--level", type=LEVEL, help="The power level to route for."),
    click.option(
        "--strategy",
        type=click.Choice(["balanced", "cost_optimized", "latency_optimized", "quality_optimized"]),
        help="How candidates are weighed.",
    ),
    click.option(
        "--weights",
        callback=three_weights,
        metavar="COST,LATENCY,QUALITY",
        help="How candidates are weighed, exactly, for instance 0.6,0.2,0.2.",
    ),
    click.option(
        "--provider",
        "providers",
        multiple=True,
        metavar="PROVIDER",
        help="A provider that may be used, a name or a UUID, and no other; repeatable.",
    ),
)


def _properties(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_PROPERTIES):
        command = option(command)
    return command


def _fields(
    client: Client,
    *,
    level: str | None,
    weights: tuple[float, float, float] | None,
    providers: Sequence[str],
    **others: Any,  # noqa: ANN401 - as click makes them
) -> dict[str, Any]:
    """Return what the options say, as the requests have it."""
    from llmrouter.v2.decision_pb2 import Weights

    return {
        "power_level": level_of(level),
        "weights": None if weights is None else Weights(cost=weights[0], latency=weights[1], quality=weights[2]),
        "provider_ids": [lookup.provider(client, each).provider_id for each in providers],
        **others,
    }


def _weights(each: RoutingRule) -> str:
    weights = each.weights
    if not each.HasField("weights"):
        return each.strategy
    return f"{weights.cost:g},{weights.latency:g},{weights.quality:g}"


def _columns(names: Mapping[str, str]) -> Sequence[Column[RoutingRule]]:
    """Return the columns of the table; `names` are the providers', by their UUIDs."""
    return (
        Column("RULE", lambda each: each.rule_name),
        Column("PRIORITY", lambda each: number(each.priority), right=True),
        Column("ACTIVE", lambda each: yes_no(each.is_active)),
        Column("LEVEL", lambda each: level_name(each.power_level)),
        Column("WEIGHTS", _weights),
        Column("PROVIDERS", lambda each: ", ".join(names.get(provider, provider) for provider in each.provider_ids)),
        Column("CONDITION", lambda each: each.condition),
    )


@click.group()
def rules() -> None:
    """Look at the routing rules and change them. Needs the role admin.

    Of the active rules the first one whose condition holds sets a request's power level, weights or providers.
    RULE is a name or a UUID.
    """


@rules.command("list")
@click.option("--active", is_flag=True, help="Only active ones.")
@json_option
@speaks_to_server("admin")
def list_rules(server: Server, active: bool, as_json: bool) -> None:
    """List the rules in the order in which they are tried."""
    from llmrouter.v2.provider_service_pb2 import ListProvidersRequest
    from llmrouter.v2.routing_rule_service_pb2 import ListRoutingRulesRequest

    with server.connect() as client:
        providers = lookup.every(client.providers.ListProviders, ListProvidersRequest(), "providers")
        names = {each.provider_id: each.name for each in providers}
        found = lookup.every(client.rules.ListRoutingRules, ListRoutingRulesRequest(active_only=active), "rules")
        show_all(found, _columns(names), as_json=as_json)


@rules.command()
@RULE
@json_option
@speaks_to_server("admin")
def show(server: Server, name: str, as_json: bool) -> None:
    """Show one rule in full."""
    with server.connect() as client:
        show_one(lookup.rule(client, name), as_json=as_json)


@rules.command()
@click.argument("name")
@_properties
@click.option("--inactive", is_flag=True, help="Leave it out of routing for now.")
@json_option
@speaks_to_server("admin")
def create(
    server: Server,
    *,
    name: str,
    inactive: bool,
    as_json: bool,
    **properties: Any,  # noqa: ANN401 - as click makes them
) -> None:
    """Create a rule, with at least one of --level, --strategy, --weights and --provider."""
    from llmrouter.v2.routing_rule_service_pb2 import CreateRoutingRuleRequest

    with server.connect() as client:
        request = CreateRoutingRuleRequest(rule_name=name, is_active=not inactive, **_fields(client, **properties))
        show_one(client.rules.CreateRoutingRule(request), as_json=as_json)


@rules.command()
@RULE
@click.option("--name", "new_name", help="Another name.")
@_properties
@click.option("--clear-level", "clear_power_level", is_flag=True, help="Set no power level any more.")
@click.option("--clear-weights", is_flag=True, help="Set neither strategy nor weights any more.")
@click.option("--clear-providers", "clear_provider_ids", is_flag=True, help="Let every provider through again.")
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
    """Change what is given of a rule, and leave the rest as it is.

    The providers are replaced as a whole.
    """
    from llmrouter.v2.routing_rule_service_pb2 import UpdateRoutingRuleRequest

    with server.connect() as client:
        rule_id = lookup.rule(client, name).rule_id
        request = UpdateRoutingRuleRequest(rule_id=rule_id, rule_name=new_name, **_fields(client, **properties))
        show_one(client.rules.UpdateRoutingRule(request), as_json=as_json)


@rules.command()
@RULE
@json_option
@speaks_to_server("admin")
def activate(server: Server, name: str, as_json: bool) -> None:
    """Let a rule take part in routing again."""
    _set_active(server, name, is_active=True, as_json=as_json)


@rules.command()
@RULE
@json_option
@speaks_to_server("admin")
def deactivate(server: Server, name: str, as_json: bool) -> None:
    """Leave a rule out of routing until it is activated again."""
    _set_active(server, name, is_active=False, as_json=as_json)


@rules.command()
@RULE
@click.confirmation_option(prompt="Erase this rule for good?")
@json_option
@speaks_to_server("admin")
def delete(server: Server, name: str, as_json: bool) -> None:
    """Erase a rule for good, and show what it was. Decisions that it made still name it."""
    from llmrouter.v2.routing_rule_service_pb2 import DeleteRoutingRuleRequest

    with server.connect() as client:
        request = DeleteRoutingRuleRequest(rule_id=lookup.rule(client, name).rule_id)
        show_one(client.rules.DeleteRoutingRule(request), as_json=as_json)


def _set_active(server: Server, name: str, *, is_active: bool, as_json: bool) -> None:
    from llmrouter.v2.routing_rule_service_pb2 import UpdateRoutingRuleRequest

    with server.connect() as client:
        request = UpdateRoutingRuleRequest(rule_id=lookup.rule(client, name).rule_id, is_active=is_active)
        show_one(client.rules.UpdateRoutingRule(request), as_json=as_json)
