"""Finding what people call by its name."""

# ruff: noqa: PLC0415 - the messages are imported when a command runs

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from llmrouter_server.admin.options import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llmrouter import Client
    from llmrouter.v2.byok_pb2 import ProviderKey
    from llmrouter.v2.model_pb2 import Model
    from llmrouter.v2.provider_pb2 import Provider
    from llmrouter.v2.routing_rule_pb2 import RoutingRule


def every(call: Callable[..., Any], request: Any, field: str) -> Iterator[Any]:  # noqa: ANN401 - any list there is
    """Give each thing of a list, page after page."""
    while True:
        answer = call(request)
        yield from getattr(answer, field)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def provider(client: Client, name: str) -> Provider:
    """Return the provider of this name or UUID, for an admin; says so and exits when there is none."""
    from llmrouter.v2.provider_service_pb2 import GetProviderRequest, ListProvidersRequest

    if _is_uuid(name):
        return client.providers.GetProvider(GetProviderRequest(provider_id=name))
    providers = list(every(client.providers.ListProviders, ListProvidersRequest(), "providers"))
    found: Provider = _named(name, {each.name: each for each in providers}, "provider")
    return found


def enabled_provider_id(client: Client, name: str) -> str:
    """Return the UUID of the enabled provider of this name, for any user; says so and exits when there is none."""
    from llmrouter.v2.health_service_pb2 import ListProviderHealthRequest

    if _is_uuid(name):
        return name
    providers = every(client.health.ListProviderHealth, ListProviderHealthRequest(), "providers")
    found: str = _named(name, {each.provider_name: each.provider_id for each in providers}, "provider")
    return found


def key(client: Client, name: str) -> ProviderKey:
    """Return the caller's key for the provider of this name, or the one of this UUID; says so and exits without one."""
    from llmrouter.v2.byok_service_pb2 import ListKeysRequest

    keys = list(every(client.byok.ListKeys, ListKeysRequest(), "keys"))
    by_id: dict[str, ProviderKey] = {each.key_id: each for each in keys}
    if name.lower() in by_id:
        return by_id[name.lower()]
    found: ProviderKey = _named(name, {each.provider_name: each for each in keys}, "key of yours for")
    return found


def model(client: Client, name: str, provider_name: str | None) -> Model:
    """Return the model of this name or UUID, for an admin; says so and exits when there is none, or more than one."""
    from llmrouter.v2.model_service_pb2 import GetModelRequest, ListModelsRequest

    if _is_uuid(name):
        return client.models.GetModel(GetModelRequest(model_id=name))
    request = ListModelsRequest(include_disabled=True)
    if provider_name is not None:
        request.provider_id = provider(client, provider_name).provider_id
    models = [each for each in every(client.models.ListModels, request, "models") if each.model_name == name]
    if not models:
        where = "" if provider_name is None else f" of {provider_name}"
        fail(f"there is no model {name!r}{where}; `llmrouter models list --all` lists them")
    if len(models) > 1:
        fail(f"{_listed(each.provider_name for each in models)} have {name!r}: give --provider")
    found: Model = models[0]
    return found


def rule(client: Client, name: str) -> RoutingRule:
    """Return the routing rule of this name or UUID; says so and exits when there is none."""
    from llmrouter.v2.routing_rule_service_pb2 import GetRoutingRuleRequest, ListRoutingRulesRequest

    if _is_uuid(name):
        return client.rules.GetRoutingRule(GetRoutingRuleRequest(rule_id=name))
    rules = list(every(client.rules.ListRoutingRules, ListRoutingRulesRequest(), "rules"))
    found: RoutingRule = _named(name, {each.rule_name: each for each in rules}, "rule")
    return found


def _named(name: str, things: dict[str, Any], what: str) -> Any:  # noqa: ANN401 - whatever is looked for
    """Find a thing by its name, of whatever case when that is clear."""
    same = [each for each in things if each.casefold() == name.casefold()]
    found = name if name in same else same[0] if len(same) == 1 else None
    if found is None:
        fail(f"there is no {what} {name!r}; there are: {_listed(things) or 'none'}")
    return things[found]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _is_uuid(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True
