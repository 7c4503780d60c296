"""The dashboard asks only for what the server tells, shows all of it, and can be imported as it is."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest

from promql import EXPOSED, METRICS, check_functions, check_names, check_values, labels_of, nodes, selectors

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
ROWS = ["Overview", "Traffic", "Routing", "Providers", "Memory and queues", "Database", "Keys"]
COLUMNS = 24

NOT_SHOWN: dict[str, str] = {}
"""Metrics that the dashboard leaves out, by name, and why."""


def plain(query: str) -> str:
    """Put in Grafana's own variables, as Grafana does before Prometheus sees a query."""
    filled = query.replace("$__rate_interval", "1m").replace("$__range", "3h").replace("$instance", ".*")
    assert "$" not in filled, query
    return filled


def queries() -> Iterator[tuple[str, str, str]]:
    for panel in SHOWN:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", plain(target["expr"]), target["legendFormat"]


QUERIES = [pytest.param(expr, legend, id=name) for name, expr, legend in queries()]
each_query = pytest.mark.parametrize(("expr", "legend"), QUERIES)


# --- what it asks for ---


@each_query
def test_a_query_asks_only_for_metrics_and_labels_that_there_are(expr: str, legend: str) -> None:
    check_names(expr)
    for selector in selectors(expr):
        assert "instance" in {matcher.name for matcher in selector.matchers.matchers}, (
            "the choice of replicas is left out"
        )
    assert set(re.findall(r"{{(\w+)}}", legend)) <= set().union(*(labels_of(each.name) for each in selectors(expr)))


@each_query
def test_a_label_is_asked_for_values_that_it_can_have(expr: str, legend: str) -> None:
    del legend
    check_values(expr)


@each_query
def test_a_counter_is_asked_for_its_rate_and_a_histogram_for_its_shape(expr: str, legend: str) -> None:
    del legend
    check_functions(expr)
    if "_bucket" in expr:
        assert expr.startswith("histogram_quantile(")


@each_query
def test_what_a_query_divides_its_series_by_is_what_its_legend_names(expr: str, legend: str) -> None:
    grouped = {
        label
        for node in nodes(expr)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None
        for label in node.modifier.labels
    }
    is_one_number = expr.startswith("count(")
    assert is_one_number or set(re.findall(r"{{(\w+)}}", legend)) == grouped - {"le"}


def test_every_metric_is_shown_or_left_out_for_a_reason() -> None:
    asked = {EXPOSED[selector.name]._name for _, expr, _ in queries() for selector in selectors(expr)}
    assert asked.isdisjoint(NOT_SHOWN)
    assert asked | set(NOT_SHOWN) == {metric._name for metric in METRICS}
    assert all(NOT_SHOWN.values())


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(rate(llmrouter_requests_total[1m])", "rate(llmrouter_requests_total)", "sum by code (up)", "", "a b",
        "histogram_quantile(llmrouter_request_seconds_bucket)", 'llmrouter_requests_total{code="OK}',
    ],
)  # fmt: skip
def test_a_query_that_prometheus_would_refuse_is_refused_here(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        promql_parser.parse(wrong)


# --- how it looks ---


def test_the_rows_come_in_this_order_and_each_has_panels() -> None:
    rows = [panel for panel in PANELS if panel["type"] == "row"]
    assert [row["title"] for row in rows] == ROWS
    assert not any(row["collapsed"] or row["panels"] for row in rows)
    tops = [row["gridPos"]["y"] for row in rows]
    for top, below in itertools.pairwise([*tops, 10_000]):
        assert [panel for panel in SHOWN if top < panel["gridPos"]["y"] < below]


def test_no_two_panels_overlap_and_each_line_is_full() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        place = panel["gridPos"]
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, (panel["title"], taken.get(cell))
            taken[cell] = panel["title"]
    assert {x for x, _ in taken} == set(range(COLUMNS))
    assert len(taken) == COLUMNS * (1 + max(y for _, y in taken))


def test_panels_have_ids_that_stay_and_titles_that_differ() -> None:
    assert [panel["id"] for panel in PANELS] == list(range(1, len(PANELS) + 1))
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert DASHBOARD["uid"] == "llmrouter"
    assert DASHBOARD["id"] is None


@pytest.mark.parametrize("panel", SHOWN, ids=[panel["title"] for panel in SHOWN])
def test_a_panel_says_what_it_shows_in_which_unit_and_where_it_comes_from(panel: dict[str, Any]) -> None:
    assert re.fullmatch(r"[A-Z0-9].*\.", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"] in {"reqps", "ops", "s", "percentunit", "short", "none"}
    assert {json.dumps(each["datasource"]) for each in (panel, *panel["targets"])} == {
        '{"type": "prometheus", "uid": "${datasource}"}'
    }
    if any("_seconds_bucket" in target["expr"] for target in panel["targets"]):
        assert panel["fieldConfig"]["defaults"]["unit"] == "s"


def test_it_can_be_imported_anywhere() -> None:
    datasource, instance = DASHBOARD["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    assert instance["name"] == "instance"
    match = re.fullmatch(r"label_values\((\w+), instance\)", instance["definition"])
    assert match is not None
    assert match[1] in EXPOSED
    assert DASHBOARD["schemaVersion"] <= 39  # Grafana 10; a later one brings it up to its own
    text = FILE.read_text(encoding="utf-8")
    assert not re.search(r"https?://|/(home|root|tmp|Users|work)\b|localhost", text)
    assert text == json.dumps(DASHBOARD, indent=2) + "\n"
