"""The report on scale, as Markdown: what was measured of each part, and what it comes to on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.scale_paper import on_paper
from bench.scale_recording import LOADS, UNARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.rounds import Figures

LATEST_MS = 1000
"""By when every replica has seen a change."""


def markdown(found: Mapping[str, Any], performance: Mapping[str, float]) -> str:
    """Return the report of the parts that were measured; `performance`: the medians of `make bench`."""
    figures = {name: part["figures"] for name, part in found.items()}
    lines = [
        "# Scale",
        "",
        "Made by `make bench-scale`, from measurements of one machine: what cost grows with, and where it ends. Every",
        "figure is measured, unless it stands under *On paper*. Every answer was compared with what it must be.",
        "Postgres is durable, with settings as they come but for those named below. All of it is in `scale.json`.",
        "",
        *(_about(name, part["about"]) for name, part in found.items()),
        "",
    ]
    for name, write in SECTIONS.items():
        if name in figures:
            lines += [*write(figures[name]), ""]
    if figures.keys() >= SECTIONS.keys():
        lines += [*_growth(figures), "", *on_paper(figures, performance), ""]
    return "\n".join(lines)


def _about(name: str, about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    postgres = ", ".join(f"{setting} {value}" for setting, value in about["postgres"].items())
    return (
        f"- {name}: {about['date']}, commit {about['commit']}; {about['cpus']} CPUs, {about['cpu']},"
        f" {about['memory_gib']} GiB, {about['system']}; {versions}; {postgres}"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def _start(found: Mapping[str, Figures]) -> list[str]:
    imports = dict(found["imports"])
    total = imports.pop("all")
    rows = [
        [name, f"{each['ready_s']:.2f}", f"{each['slowest_s']:.2f}", f"{each['rss_mb']:.0f}"]
        for name, each in found.items()
        if name != "imports"
    ]
    shares = ", ".join(f"{name} {ms:.0f}" for name, ms in sorted(imports.items(), key=lambda item: -item[1]))
    return [
        "## Start",
        "",
        "`llmrouter serve` from its start until it, or its first worker, takes connections, over a migrated database;",
        "the goal is 1 s.",
        "",
        *_table(["", "ready s", "slowest s", "memory of a worker MB"], rows),
        "",
        f"Importing it takes {total:.0f} ms while the importer's clock is on, each package for its own modules:",
        f"{shares}.",
    ]


def _recording(found: Mapping[str, Figures]) -> list[str]:
    rows = [
        [
            name, f"{each['per_s']:,.0f}", f"{each['p50_ms']:.1f}", f"{each['p99_ms']:.1f}",
            *(f"{each[part]:.0f}" if part in each else "" for part in ("server_us", "postgres_us", "rss_mb")),
        ]
        for name, each in found.items()
    ]  # fmt: skip
    unary = LOADS[UNARY]
    in_flight = " or ".join(
        f"{load['connections'] * load['callers']} calls of {load['batch']}" for load in LOADS.values() if load["batch"]
    )
    return [
        "## Recording usage",
        "",
        f"Records acknowledged a second: in BatchRecordUsage with {in_flight} in flight, and in",
        f"RecordUsage with {unary['connections'] * unary['callers']}. Each names a decision; its payer is to be found",
        "out. Server, Postgres and load share all cores. After each load every acknowledged record was found once in",
        "the records and in every sum. Linux deals connections out to workers as it likes: two calls may both",
        "be one's. Postgres has files of its log to use again, as after its first hours: a new one takes some 35 ms.",
        "Goals: 10,000 and 2,500, the 99th percentile under 50 ms. The echo is a bare gRPC server, in a process",
        "set up as ours, in turn with the rest: what the machine had to give in those minutes.",
        "",
        *_table(["", "records/s", "p50 ms", "p99 ms", "server µs a record", "Postgres µs a record", "memory MB"], rows),
    ]


def _catalogue(found: Mapping[str, Figures]) -> list[str]:
    names = {
        "p50_ms": "Route, remembered, p50 ms",
        "p99_ms": "Route, remembered, p99 ms",
        "server_us": "Route, remembered, server µs",
        "new_p50_ms": "Route, new, p50 ms",
        "new_p99_ms": "Route, new, p99 ms",
        "new_server_us": "Route, new, server µs",
        "rss_mb": "memory MB",
        "rss_after_mb": "memory after the changes MB",
        "snapshot_kb": "a stored snapshot KB",
        "commit_ms": "a change's commit ms",
        "seen_ms": "from then until Route has seen it ms",
    }
    seed, many = found["seed"], found["many"]
    return [
        "## Models",
        "",
        "One caller, one call at a time; the four models that Route returns were compared with those that the",
        f"documented formula puts first. All models at once were added in {many['load_s']:.1f} s.",
        "Remembered is the same request again, whose decision is taken from memory; new ones have an estimate of",
        "tokens that nobody had before, so that all models are weighed. Real requests are between the two.",
        "",
        *_table(
            ["", f"{seed['models']:,.0f} models", f"{many['models']:,.0f} models"],
            [[label, f"{seed[name]:,.2f}", f"{many[name]:,.2f}"] for name, label in names.items()],
        ),
    ]


def _users(found: Mapping[str, Figures]) -> list[str]:
    memory = dict(found["memory"])
    cached, unwritten = memory.pop("cached"), memory.pop("most_unwritten")
    rows = [
        [
            name, f"{each['p50_ms']:.2f}", f"{each['p99_ms']:.2f}",
            *(f"{each[figure]:,.0f}" if figure in each else "" for figure in ("per_s", "server_us")),
        ]
        for name, each in found.items()
        if name != "memory"
    ]  # fmt: skip
    return [
        "## Users",
        "",
        "A million users, each with settings and two keys. A cold one is new to the process: Route reads what it must",
        "know of them in one query. The goal for it is 3 ms at the median, alone. The lines with workers are of 32",
        "calls in flight, with server, Postgres and load on all cores.",
        "",
        *_table(["", "p50 ms", "p99 ms", "calls/s", "server µs"], rows),
        "",
        f"Memory of one process that may remember {cached:,.0f} users, after so many different ones, when their",
        f"decisions were written; as many calls as can be had left up to {unwritten:,.0f} decisions to be written.",
        "",
        *_table(
            ["users seen", "memory MB"],
            [[f"{int(name.removeprefix('users ')):,}", f"{mb:.0f}"] for name, mb in memory.items()],
        ),
    ]


def _usage(found: Mapping[str, Figures]) -> list[str]:
    few, many = found["about few"], found["about many"]
    columns = ["", *(f"{each['rows'] / 1e6:.3g} M rows, {part} ms" for each in (few, many) for part in ("p50", "p99"))]
    shown = [f"{size} {part}_ms" for size in ("few", "many") for part in ("p50", "p99")]
    rows = [
        [what, *(f"{each[name]:.2f}" for name in shown), f"{_flat(each):.2f}"]
        for what, each in found.items()
        if not what.startswith("about")
    ]  # fmt: skip
    return [
        "## Rows of usage",
        "",
        "A year of records with their sums, the same questions to both in turn; one caller, one call at a time. A page",
        "has 50 records, the deep one begins half a year back. The answers were compared with the records themselves.",
        *(
            f"Of {each['rows'] / 1e6:.3g} M rows ({each['bytes'] / 1e9:.1f} GB) the normal user has"
            f" {each['rows of the normal user']:,.0f}, the heavy one {each['rows of the heavy user']:,.0f}."
            for each in (few, many)
        ),
        "",
        *_table([*columns, "p50, many / few"], rows),
        "",
        "What grows is what the normal user has: from days without usage to one sum a day for each of three models.",
    ]


def _flat(each: Figures) -> float:
    return each["many p50_ms"] / each["few p50_ms"]


def _growth(found: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    seed, many = found["catalogue"]["seed"], found["catalogue"]["many"]
    cold, warm = (found["users"][f"{name}, one at a time"] for name in ("cold", "warm"))
    per_user_kb = kb_a_user(found)
    asked, about = found["usage"]["GetUsage, 30 days, heavy user"], found["usage"]
    one, two = (found["recording"][f"{UNARY}, {count} workers"] for count in (1, 2))
    rows = [
        [
            f"models, {seed['models']:,.0f} → {many['models']:,.0f}",
            (
                f"a new Route {seed['new_server_us']:,.0f} → {many['new_server_us']:,.0f} µs; "
                f"a remembered one {seed['server_us']:,.0f} → {many['server_us']:,.0f}"
            ),
            f"{seed['rss_mb']:.0f} → {many['rss_mb']:.0f} MB a worker",
            f"a new Route {seed['new_p50_ms']:.2f} → {many['new_p50_ms']:.2f} ms",
            (
                "the loop, while it weighs all models for a new request; "
                f"news of a change: {many['seen_ms']:.0f} ms; so, a second at {_models_for(seed, many):,.0f} models"
            ),
        ],
        [
            "users seen, warm → cold",
            "",
            f"{per_user_kb:.1f} KB a remembered user, up to CACHED_USERS",
            f"Route {warm['p50_ms']:.2f} → {cold['p50_ms']:.2f} ms",
            f"memory: 100,000 remembered users (the default) are {per_user_kb * 100:.0f} MB a worker",
        ],
        [
            f"rows of usage, {about['about few']['rows'] / 1e6:.3g} → {about['about many']['rows'] / 1e6:.3g} M",
            "",
            f"{about['about few']['bytes'] / 1e9:.1f} → {about['about many']['bytes'] / 1e9:.1f} GB on disk",
            f"GetUsage {asked['few p50_ms']:.2f} → {asked['many p50_ms']:.2f} ms",
            "the disk",
        ],
        [
            "workers, 1 → 2",
            f"RecordUsage {one['server_us']:.0f} → {two['server_us']:.0f} µs",
            f"{one['rss_mb']:.0f} MB each",
            f"p99 of a call {one['p99_ms']:.0f} → {two['p99_ms']:.0f} ms",
            f"records {one['per_s']:,.0f} → {two['per_s']:,.0f} a second on the same cores",
        ],
    ]
    return [
        "## Cost of growth",
        "",
        *_table(["what grows", "CPU", "memory", "latency, p50", "what gives out first"], rows),
    ]


def _models_for(seed: Figures, many: Figures) -> float:
    """Return how many models it takes for a change to be seen as late as it may be."""
    a_model = (many["seen_ms"] - seed["seen_ms"]) / (many["models"] - seed["models"])
    return seed["models"] + (LATEST_MS - seed["seen_ms"]) / a_model


def kb_a_user(found: Mapping[str, Mapping[str, Figures]]) -> float:
    """Return how much memory a remembered user takes: what a process grew by until it remembered all that it may."""
    memory = found["users"]["memory"]
    cached = memory["cached"]
    steps = [int(name.removeprefix("users ")) for name in memory if name.startswith("users ")]
    full = max(steps, key=lambda step: (step <= cached, step))
    return (memory[f"users {full}"] - memory["users 0"]) * 1e3 / full if full else 0.0


SECTIONS = {"start": _start, "users": _users, "catalogue": _catalogue, "usage": _usage, "recording": _recording}
