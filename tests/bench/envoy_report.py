"""What leaving parts of Envoy's configuration out came to, as Markdown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.envoy_edits import OURS
from bench.rounds import IN_FLIGHT, quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUIET = 0.25
"""The share of the rounds that were at most as dear: other work on the machine makes some of them dearer."""


def markdown(about: Mapping[str, Any], found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the report. `found` has for each door, for each Envoy, what each round cost."""
    lines = [
        "# What Envoy costs a request, part by part",
        "",
        "Made by `make bench-envoy`, from measurements of one machine; the differences say more than the figures.",
        f"Each line is an Envoy with our configuration and without that part, {IN_FLIGHT} requests in flight. All ran",
        f"at once and took turns, {about['rounds']} times {about['seconds']:g} s each; Envoys and server on one core,",
        f"load and provider on another ({about['cores']}). A figure is the lower quartile of the rounds, in CPU µs a",
        "request of the Envoy process by its own clock. How much is noise, the line of nothing once more tells. Parts",
        "depend on each other, so that the differences do not add up. Every answer was compared with what it must be.",
        "",
        f"- {about['date']}, commit {about['commit']}",
        f"- {about['cpus']} CPUs, {about['cpu']}, {about['memory_gib']} GiB, {about['system']}",
        "- " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        f"- load average at the end: {about['load']:.0f}; above 3 there was other work, and all of it is dearer",
    ]
    for door, costs in found.items():
        whole = quantile(costs[OURS], QUIET)
        lines += ["", f"## {door}", "", "| without | µs a request | difference | median |", "|---|---|---|---|"]
        ordered = sorted(costs, key=lambda name: (name != OURS, quantile(costs[name], QUIET)))
        lines += [
            f"| {name} | {quantile(costs[name], QUIET):,.0f} | "
            f"{whole - quantile(costs[name], QUIET):,.0f} | {median(costs[name]):,.0f} |"
            for name in ordered
        ]
    return "\n".join([*lines, ""])
