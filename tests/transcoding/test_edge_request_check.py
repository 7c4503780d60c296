"""Bodies that Envoy refuses before it makes messages of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrouter.v2 import provider_service_pb2, routing_service_pb2, settings_service_pb2
from transcoding.edge_harness import API, MIB, Edge, assert_malformed

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor


class TestRequestCheck:
    @pytest.mark.parametrize(
        ("method", "path", "body", "message"),
        [
            ("POST", "/route", '{"fallbackcount": 1}', 'unknown field "fallbackcount"'),
            ("POST", "/route", '{"": 1}', 'unknown field ""'),
            ("POST", "/route", r'{"task\u005Ftypo": 1}', 'unknown field "task_typo"'),
            ("POST", "/route", r'{"task_type\u0000": 1}', 'unknown field "task_type?"'),
            ("POST", "/route", '{"naïve": 1}', 'unknown field "na??ve"'),
            ("POST", "/route", '{"%s": 1}' % ("x" * 200), f'unknown field "{"x" * 125}..."'),
            ("PUT", "/settings", '{"routing_config": {"cost": 1}}', 'unknown field "routing_config.cost"'),
            ("PUT", "/settings", '{"routing_config": [{"cost": 1}]}', 'unknown field "routing_config[0].cost"'),
            ("POST", "/route", '{"task_type": "a", "task_type": "b"}', 'the field "task_type" is given twice'),
            ("POST", "/route", '{"task_type": "a", "taskType": "b"}', 'the field "taskType" is given twice'),
            ("POST", "/route", r'{"task_type": "a", "task\u005ftype": "b"}', 'the field "task_type" is given twice'),
            ("POST", "/route", '{"task_type": {"a": 1}}', 'the field "task_type" must not be an object'),
            ("PUT", "/providers/x", '{"provider_id": "y"}', 'the field "provider_id" is set by the path'),
            ("PUT", "/providers/x", '{"providerId": "y"}', 'the field "provider_id" is set by the path'),
            ("GET", "/settings", '{"a": 1}', 'unknown field "a"'),
            ("DELETE", "/byok/x", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/%72oute", '{"a": 1}', 'unknown field "a"'),
            ("POST", "//route", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/x/../route?user_id=", '{"a": 1}', 'unknown field "a"'),
            ("POST", "/route", "[]", "the body must be a JSON object"),
            ("POST", "/route", "null", "the body must be a JSON object"),
            ("POST", "/route", " ", "the body must be a JSON object"),
            ("POST", "/route", "{'task_type': 1}", "the body is not valid JSON at byte 2"),
            ("POST", "/route", "{task_type: 1}", "the body is not valid JSON at byte 2"),
            ("POST", "/route", '{"task_type": 1,}', "the body is not valid JSON at byte 17"),
            ("POST", "/route", "{} {}", "the body is not valid JSON at byte 4"),
            ("POST", "/route", '{"task_type": 01}', "the body is not valid JSON at byte 16"),
            (
                "POST",
                "/providers",
                '{"config": ' + '{"a":' * 32 + "1" + "}" * 33,
                "the body is nested more than 32 levels deep",
            ),
            ("POST", "/providers", '{"config": ' + "[" * 100_000, "the body is nested more than 32 levels deep"),
        ],
    )
    async def test_what_is_refused(self, edge: Edge, method: str, path: str, body: str, message: str) -> None:
        assert_malformed(await edge.call(method, API + path, body), message)
        assert edge.server.calls == []

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/route", r'{ "task\u005ftype" : "a", "requiredCapabilities":["b"] , "user_id":null}'),
            ("PUT", "/settings", '{"routing_config": {"costWeight": 1e-1}, "clear_monthly_budget": false}'),
            ("PUT", "/settings", '{"routing_config": null}'),
            ("POST", "/providers", '{"config": {"any": {"thing": [1, {"goes": null}]}, "": "é", "name": 1}}'),
            ("POST", "/providers", '{"config": ' + '{"a":' * 31 + "1" + "}" * 32),
            ("GET", "/settings", "{}"),
        ],
    )
    async def test_what_passes(self, edge: Edge, method: str, path: str, body: str) -> None:
        reply = await edge.call(method, API + path, body)
        assert reply.status == 200, reply.body
        (call,) = edge.server.calls
        assert call.request == json_format.Parse(body, type(call.request)())

    async def test_a_body_of_one_mebibyte_is_walked_quickly(self, edge: Edge) -> None:
        body = '{"config":{"a":"' + "x" * (MIB - 1000) + '"},"b":1}'
        took: list[float] = []
        for _ in range(5):
            started = time.perf_counter()
            assert_malformed(await edge.call("POST", f"{API}/providers", body), 'unknown field "b"')
            took.append(time.perf_counter() - started)
        assert min(took) < 1


NAMES = st.sampled_from(
    ["name", "config", "provider_type", "providerType", "requires_byok", "routing_config", "routingConfig", "strategy"]
) | st.sampled_from(["cost_weight", "costWeight", "power_level", "preferred_power_level", "user_id", "userId", "x", ""])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)
)
CONTAINERS = st.integers(1, 34).map(lambda depth: "[" * depth + "]" * depth)


@st.composite
def documents(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON text: mostly an object of mostly known names, spelt in odd ways, now and then with a byte wrong."""
    kind = draw(st.integers(0, 9))
    if depth > 0 and (depth > 3 or kind < 4):
        return draw(st.one_of(SCALARS.map(json.dumps), CONTAINERS))
    if depth > 0 and kind == 4:
        return "[" + ",".join(draw(st.lists(documents(depth + 1), max_size=2))) + "]"
    members = []
    for name in draw(st.lists(NAMES, max_size=4)):
        spelt = json.dumps(name)
        if name and draw(st.booleans()) and draw(st.booleans()):
            spelt = f'"\\u{ord(name[0]):04x}{name[1:]}"'
        space = draw(st.sampled_from(["", " ", "\n\t"]))
        members.append(f"{space}{spelt}{space}:{space}{draw(documents(depth + 1))}{space}")
    text = "{" + ",".join(members) + "}"
    if depth == 0 and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(["", ",", '"', "}", "0", "\\", "'", "-", ".", "e"])) + text[at + 1 :]
    return text or " "


class Members(list[tuple[str, Any]]):
    """The members of a JSON object, duplicates and all."""


def _no_constant(name: str) -> None:
    raise ValueError(name)


def acceptable(text: str, message: Descriptor) -> bool:
    """Judge a body as the edge should: strict JSON, known fields once each, no object in a plain field, 32 levels."""
    try:
        value = json.loads(text, object_pairs_hook=Members, parse_constant=_no_constant)
    except ValueError:
        return False
    return isinstance(value, Members) and _depth(value) <= 32 and _fits(value, message)


def _depth(value: Any) -> int:
    inner = [each for _, each in value] if isinstance(value, Members) else value
    return 1 + max(map(_depth, inner), default=0) if isinstance(inner, list) else 0


def _fits(value: Any, message: Descriptor | None) -> bool:
    if isinstance(value, Members):
        if message is None:
            return False
        fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
        names = [fields[name].name for name, _ in value if name in fields]
        return len(names) == len(value) == len(set(names)) and all(
            (fields[name].message_type is not None and fields[name].message_type.full_name == "google.protobuf.Struct")
            or _fits(each, fields[name].message_type)
            for name, each in value
        )
    return all(_fits(each, message) for each in value) if isinstance(value, list) else True


@settings(max_examples=400, deadline=None)
@given(
    text=documents(),
    path=st.sampled_from([("POST", "/providers"), ("PUT", "/settings"), ("POST", "/route")]),
)
async def test_the_check_agrees_with_pythons_json_and_the_descriptors(
    shared_edge: Edge, text: str, path: tuple[str, str]
) -> None:
    message = {
        "/providers": provider_service_pb2.CreateProviderRequest,
        "/settings": settings_service_pb2.UpdateSettingsRequest,
        "/route": routing_service_pb2.RouteRequest,
    }[path[1]].DESCRIPTOR
    shared_edge.server.answer = None
    reply = await shared_edge.call(path[0], API + path[1], text)
    refused = reply.status == 400 and reply.json()["message"].startswith(("unknown field ", "the field ", "the body "))
    assert reply.status in (200, 400)
    assert refused is not acceptable(text, message), reply.body
