"""What Prometheus may ask of the server: its metrics with their labels, and queries taken apart."""

from __future__ import annotations

from typing import Any, get_args

import grpc
import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from llmrouter_server.audit.key_reads import Payer, Purpose
from llmrouter_server.health.machine import Outcome, Status
from llmrouter_server.routing.eligibility import Exclusion
from llmrouter_server.runtime import telemetry
from llmrouter_server.runtime.roles import METHOD_ROLES

METRICS = [each for each in vars(telemetry).values() if isinstance(each, MetricWrapperBase)]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
EXPOSED = {metric._name + suffix: metric for metric in METRICS for suffix in SUFFIXES[str(metric._type)]}
OF_THE_TARGET = {"instance", "job"}
"""Labels that Prometheus adds when it scrapes."""

# What a label may say, for the labels whose values are fixed.
VALUES = {
    "code": {code.name for code in grpc.StatusCode},
    "method": {*METHOD_ROLES, "unknown"},
    "status": {status.name for status in Status},
    "outcome": {outcome.value for outcome in Outcome},
    "reason": {reason.value for reason in Exclusion},
    "state": {"idle", "used"},
    "result": {"hit", "miss"},
    "flag": {"degraded", "downgraded"},
    "purpose": set(get_args(Purpose)),
    "payer": set(get_args(Payer)),
}


def nodes(query: str) -> list[Any]:
    """Return every part of a query."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(query), pre_visit=visit)
    return found


def selectors(query: str) -> list[Any]:
    """Return the selectors of a query, those of a time range too."""
    found = []
    for node in nodes(query):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
    return found


def labels_of(name: str) -> set[str]:
    return {*EXPOSED[name]._labelnames, *OF_THE_TARGET, *({"le"} if name.endswith("_bucket") else ())}


def check_names(query: str) -> None:
    """It asks only for metrics and labels that there are, and divides what it finds only by those."""
    asked = selectors(query)
    assert asked
    for selector in asked:
        assert selector.name in EXPOSED
        assert not selector.matchers.or_matchers
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels_of(selector.name)
    known = set().union(*(labels_of(selector.name) for selector in asked))
    for node in nodes(query):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known


def check_values(query: str) -> None:
    """It asks for values that a label can have."""
    for selector in selectors(query):
        for matcher in selector.matchers.matchers:
            if matcher.name != "instance":
                wanted = matcher.value.split("|") if matcher.op == promql_parser.MatchOp.Re else [matcher.value]
                assert set(wanted) <= VALUES[matcher.name]


def check_functions(query: str) -> None:
    """It asks for the rate of counters and histograms, and for the value of gauges."""
    over_time = {
        node.func.name
        for node in nodes(query)
        if isinstance(node, promql_parser.Call)
        and any(isinstance(argument, promql_parser.MatrixSelector) for argument in node.args)
    }
    assert over_time <= {"rate", "increase"}
    ranged = [node.vector_selector.name for node in nodes(query) if isinstance(node, promql_parser.MatrixSelector)]
    for selector in selectors(query):
        is_gauge = EXPOSED[selector.name]._type == "gauge"
        assert (selector.name in ranged) is not is_gauge
