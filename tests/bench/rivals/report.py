"""What the rounds come to, as figures and as Markdown. Ratios are taken in each round, then their median."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.mock_provider import ANSWER, EVENT, TICK_S
from bench.rivals.gateways import DIRECT, OURS, PLAIN
from bench.rivals.measured import CALM_PER_S, IN_FLIGHT, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.rounds import Figures

    Round = Mapping[str, Mapping[str, Figures]]

LITELLM, PORTKEY, TENSORZERO, BIFROST = "LiteLLM proxy", "Portkey gateway", "TensorZero", "Bifrost"
OURS_ON = (
    "the token, checked at Envoy and at the server; a budget for each user, held before the request and settled after "
    "it; a decision among three providers; audited credentials; each attempt recorded durably; provider health"
)


def added(each: Round, name: str, quantile: str) -> float:
    """Return the milliseconds that a gateway adds at the calm rate."""
    return each["calm"][name][quantile] - each["calm"][DIRECT][quantile]


def saturated(each: Round, name: str, figure: str) -> float:
    return each["saturated"][OURS][figure] / each["saturated"][name][figure]


RATIOS: dict[str, tuple[str, str, Callable[[Round], float]]] = {
    "requests a second, ours / LiteLLM": (LITELLM, "at least 20", lambda each: saturated(each, LITELLM, "per_s")),
    "added p99, ours / LiteLLM": (
        LITELLM,
        "at most 0.1",
        lambda each: added(each, OURS, "p99_ms") / added(each, LITELLM, "p99_ms"),
    ),
    "requests a second, ours / Portkey": (PORTKEY, "at least 3", lambda each: saturated(each, PORTKEY, "per_s")),
    "CPU a request, ours / TensorZero": (TENSORZERO, "at most 2.5", lambda each: saturated(each, TENSORZERO, "us")),
    "requests a second, ours / Bifrost": (BIFROST, "", lambda each: saturated(each, BIFROST, "per_s")),
    "CPU a request, ours / plain Envoy": (PLAIN, "", lambda each: saturated(each, PLAIN, "us")),
    "CPU a chunk, ours / plain Envoy": (
        PLAIN,
        "at most 2",
        lambda each: each["streams"][OURS]["us_a_chunk"] / each["streams"][PLAIN]["us_a_chunk"],
    ),
    "CPU a chunk, ours / TensorZero": (
        TENSORZERO,
        "",
        lambda each: each["streams"][OURS]["us_a_chunk"] / each["streams"][TENSORZERO]["us_a_chunk"],
    ),
}
"""By name: the rival that it needs, the goal, the ratio."""


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return the medians of every figure, and those of the ratios with the least and the greatest."""
    names = list(rounds[0]["saturated"])
    medians = {
        name: {
            f"{what}: {figure}": median(each[what][name][figure] for each in rounds)
            for what in rounds[0]
            for figure in rounds[0][what][name]
        }
        | {
            f"added {quantile}": median(added(each, name, quantile) for each in rounds)
            for quantile in ("p50_ms", "p99_ms")
        }
        for name in names
    }
    ratios = {name: [ratio(each) for each in rounds] for name, (rival, _, ratio) in RATIOS.items() if rival in names}
    return {
        "medians": medians,
        "ratios": {
            name: {"median": median(values), "least": min(values), "greatest": max(values)}
            for name, values in ratios.items()
        },
    }


def markdown(found: Mapping[str, Any]) -> str:
    """Return the report."""
    about, medians, ratios = found["about"], found["summary"]["medians"], found["summary"]["ratios"]
    rivals, unavailable = found["rivals"], found["unavailable"]

    def ratio(name: str) -> str:
        rival, goal, _ = RATIOS[name]
        if name not in ratios:
            return f"| {name} | not measured: no {rival} | | | {goal} |"
        of = ratios[name]
        return f"| {name} | {of['median']:.3g} | {of['least']:.3g} | {of['greatest']:.3g} | {goal} |"

    def line(name: str) -> str:
        of = medians[name]
        if name == DIRECT:
            shown = [f"{of['saturated: per_s']:,.0f}", "", f"{of['calm: p50_ms']:.2f} / {of['calm: p99_ms']:.2f}"]
            return f"| {name} | {' | '.join(shown)} | | | | |"
        shown = [
            f"{of['saturated: per_s']:,.0f}",
            f"{of['saturated: us']:,.0f}",
            f"{of['calm: p50_ms']:.2f} / {of['calm: p99_ms']:.2f}",
            f"{of['added p50_ms']:.2f} / {of['added p99_ms']:.2f}",
            f"{of['streams: us_a_chunk']:,.0f}",
            f"{of['memory: mb']:,.0f}",
            f"{found['start_s'][name]:.1f}" if found["start_s"][name] else "",
        ]
        version = rivals.get(name, {}).get("version", "")
        return f"| {' '.join(filter(None, [name, version]))} | {' | '.join(shown)} |"

    def part(what: str, suffix: str, digits: int) -> str:
        of = medians[OURS]
        shown = [f"{of[f'{what}: {name}_{suffix}']:,.{digits}f}" for name in ("envoy", "server", "postgres")]
        return f"{' | '.join(shown)} | {of[f'{what}: {suffix}']:,.{digits}f}"

    others = [name for name in rivals if name in medians]
    lines = [
        "# Beside other gateways",
        "",
        "Made by `make bench-rivals`, from measurements of one machine; the ratios say more than the figures.",
        f"All processes of a gateway run on one core, load and mock provider on another ({about['cores']}). All",
        "gateways have the same mock, the same requests and one worker. Figures are medians of rounds in which the",
        f"gateways took turns (rounds: {about['rounds']}, seconds for each figure: {about['seconds']:g}); the single",
        "rounds are in `rivals.json`. Every answer was judged by its text, the reason of its end and its tokens, and",
        "every one of ours was found recorded.",
        "",
        f"- {about['date']}, commit {about['commit']}",
        f"- {about['cpus']} CPUs, {about['cpu']}, {about['memory_gib']} GiB, {about['system']}",
        "- " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "",
        "## Goals",
        "",
        "| | median | least | greatest | goal |",
        "|---|---|---|---|---|",
        *(ratio(name) for name in RATIOS),
        "",
        "## On one core",
        "",
        f"Requests a second and CPU a request with {IN_FLIGHT} in flight, answers of {len(ANSWER)} bytes. Latencies at",
        f"{CALM_PER_S:g} requests a second, and what they are above asking the mock directly. CPU a chunk with",
        f"{STREAMS} streams at once, each of {len(EVENT)} bytes every {TICK_S * 1000:g} ms. Memory after the load in",
        "megabytes, shared pages divided among those that share them. Start until the first right answer.",
        "",
        "| | requests/s | CPU µs | p50 / p99 ms | added p50 / p99 ms | µs a chunk | memory | start s |",
        "|---|---|---|---|---|---|---|---|",
        *(line(name) for name in (OURS, *others, PLAIN, DIRECT)),
        "",
        *(f"{name} {rivals[name]['version']}: {why}." for name, why in unavailable.items()),
        *([""] if unavailable else []),
        "## What they do",
        "",
        f"- **{OURS}**: {OURS_ON}. Start is that of Postgres, the server and Envoy, on data that is there.",
        *(f"- **{name}**: {rivals[name]['on']}. Off: {rivals[name]['off']}." for name in others),
        f"- **{PLAIN}**: nothing; the same binary with only a router.",
        "",
        "## Where ours goes",
        "",
        "| CPU µs | Envoy | server | Postgres | all |",
        "|---|---|---|---|---|",
        f"| a request, {IN_FLIGHT} in flight | {part('saturated', 'us', 0)} |",
        f"| a request, {CALM_PER_S:g} a second | {part('calm', 'us', 0)} |",
        f"| a chunk | {part('streams', 'us_a_chunk', 1)} |",
        "",
        *_allowed(medians),
        "By file of the server and by statement of Postgres: `server-cost.md`. By part of Envoy: `envoy-cost.md`.",
        "",
    ]
    return "\n".join(lines)


def _allowed(medians: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Tell what the goals would leave for a request; nothing of who was not measured."""
    lines = []
    for name, factor, words in (
        ("TensorZero", 2.5, "at most 2.5 times TensorZero's CPU"),
        ("Portkey gateway", 1 / 3, "at least 3 times Portkey's requests"),
        ("LiteLLM proxy", 1 / 20, "at least 20 times LiteLLM's requests"),
    ):
        if name in medians:
            allowed = medians[name]["saturated: us"] * factor
            lines.append(f"- {words}: {allowed:,.0f} µs a request, for Envoy, server and Postgres together.")
    return ["What the goals would leave, on one core:", "", *lines, ""] if lines else []
