"""docs/alerts.yaml: Prometheus takes the rules, each fires when it should, and none does when all is well."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from promql import check_functions, check_names, check_values, labels_of, selectors

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE = DOCS / "alerts.yaml"
[GROUP] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)

OK, BAD = '{code="OK", method="m", instance="a"}', '{code="INTERNAL", method="m", instance="a"}'
ROUTE = 'method="/llmrouter.v2.RoutingService/Route", instance="a"'
WELL = {
    'llmrouter_database_up{instance="a"}': "1x30",
    'llmrouter_database_up{instance="b"}': "1x30",
    'llmrouter_notifications_live{instance="a"}': "1x30",
    'llmrouter_catalog_snapshot{instance="a"}': "7x30",
    'llmrouter_catalog_snapshot{instance="b"}': "7x30",
    f"llmrouter_requests_total{OK}": "0+1000x30",
    f"llmrouter_requests_total{BAD}": "0+1x30",
    'llmrouter_dropped_total{queue="decisions", instance="a"}': "3x30",
    'llmrouter_decisions_flagged_total{flag="degraded", instance="a"}': "0x30",
    'llmrouter_decisions_flagged_total{flag="downgraded", instance="a"}': "0+5x30",
    'llmrouter_provider_health{provider="Groq", status="UNHEALTHY", instance="a"}': "0x30",
    'llmrouter_provider_health{provider="Groq", status="HEALTHY", instance="a"}': "1x30",
    f'llmrouter_request_seconds_bucket{{le="0.25", {ROUTE}}}': "0+1000x30",
    f'llmrouter_request_seconds_bucket{{le="+Inf", {ROUTE}}}': "0+1000x30",
    'llmrouter_pool_wait_seconds_bucket{le="0.1", instance="a"}': "0+1000x30",
    'llmrouter_pool_wait_seconds_bucket{le="1", instance="a"}': "0+1000x30",
    'llmrouter_pool_wait_seconds_bucket{le="+Inf", instance="a"}': "0+1000x30",
}
"""What half an hour looks like when all is well, a sample a minute, as promtool writes it."""
NOTHING = "_x30"
WRONG = {
    "LlmrouterNotScraped": dict.fromkeys(WELL, NOTHING),
    "LlmrouterDatabaseAway": {'llmrouter_database_up{instance="b"}': "0x30"},
    "LlmrouterFailing": {f"llmrouter_requests_total{BAD}": "0+20x30"},
    "LlmrouterUnwritten": {'llmrouter_dropped_total{queue="decisions", instance="a"}': "3x25 4x5"},
    "LlmrouterDegraded": {'llmrouter_decisions_flagged_total{flag="degraded", instance="a"}': "0x25 1x5"},
    "LlmrouterProviderUnhealthy": {
        'llmrouter_provider_health{provider="Groq", status="UNHEALTHY", instance="a"}': "1x30"
    },
    "LlmrouterDeaf": {'llmrouter_notifications_live{instance="a"}': "0x30"},
    "LlmrouterBehind": {'llmrouter_catalog_snapshot{instance="b"}': "6x30"},
    "LlmrouterSlow": {
        f'llmrouter_request_seconds_bucket{{le="0.25", {ROUTE}}}': "0+980x30",
        f'llmrouter_request_seconds_bucket{{le="0.5", {ROUTE}}}': "0+1000x30",
    },
    "LlmrouterPoolTooSmall": {'llmrouter_pool_wait_seconds_bucket{le="0.1", instance="a"}': "0+980x30"},
}
"""For each alert what differs then."""


@each_rule
def test_an_alert_asks_for_what_the_server_tells(rule: dict[str, Any]) -> None:
    check_names(rule["expr"])
    check_values(rule["expr"])
    check_functions(rule["expr"])


@each_rule
def test_an_alert_has_a_severity_and_a_summary_whose_labels_are_there(rule: dict[str, Any]) -> None:
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    summary = rule["annotations"]["summary"]
    grouped = re.search(r"by \((\w+)\)", rule["expr"])
    is_one_number = re.match(r"sum\(|absent\(|histogram_quantile\(|max\(", rule["expr"])
    [first, *_] = selectors(rule["expr"])
    left = {grouped[1]} - {"le"} if grouped else set() if is_one_number else labels_of(first.name)
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= left
    assert summary.endswith(".")


def test_the_guide_tells_of_each_alert_what_to_do() -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Llmrouter\w+)` \| (.+?) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == list(RULES)


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_firing(folder: Path, series: dict[str, str], alert: str | None) -> None:
    """Let Prometheus' own tool play half an hour, and say which alert fires at its end."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    test = {
        "rule_files": [str(FILE)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "29m",
                        "exp_samples": samples,
                    }
                ],
            }
        ],
    }
    file = folder / "alerts.test.yaml"
    file.write_text(yaml.safe_dump(test))
    promtool("test", "rules", str(file))


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@needs_promtool
def test_prometheus_takes_them() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(FILE))


@needs_promtool
def test_none_fires_when_all_is_well(tmp_path: Path) -> None:
    check_firing(tmp_path, WELL, None)


@needs_promtool
@pytest.mark.parametrize("alert", RULES)
def test_each_fires_when_it_should_and_alone(tmp_path: Path, alert: str) -> None:
    check_firing(tmp_path, WELL | WRONG[alert], alert)


def test_the_first_degraded_decision_is_seen() -> None:
    """A counter that is new with its first event has no increase in Prometheus."""
    program = "import prometheus_client, llmrouter_server.runtime.telemetry; print(prometheus_client.generate_latest())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert r'llmrouter_decisions_flagged_total{flag="degraded"} 0.0\n' in done.stdout
