"""What the rounds come to, as figures and as Markdown. Ratios are taken in each round, then their median."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.mock_provider import ANSWER, EVENT, TICK_S
from bench.rounds import CALM_PER_S, IN_FLIGHT, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.rounds import Figures


def summary(rounds: Sequence[Mapping[str, Figures]]) -> dict[str, dict[str, float]]:
    """Return the medians of every figure, and those of the ratios with the least and the greatest."""
    medians = {
        f"{what}: {name}": median(each[what][name] for each in rounds) for what in rounds[0] for name in rounds[0][what]
    }
    ratios: dict[str, Callable[[Mapping[str, Figures]], float]] = {
        "requests a second, ours / plain": lambda each: _ratio(each, "saturated", "per_s"),
        "CPU a request, all of ours / plain": lambda each: _ratio(each, "saturated", "us"),
        "CPU a request, our Envoy / plain": lambda each: (
            each["saturated ours"]["envoy_us"] / each["saturated plain"]["plain_us"]
        ),
        f"the same at {CALM_PER_S:g} requests a second": lambda each: (
            each["calm ours"]["envoy_us"] / each["calm plain"]["plain_us"]
        ),
        "CPU a chunk, our Envoy / plain": lambda each: (
            each["streams ours"]["envoy_us_a_chunk"] / each["streams plain"]["plain_us_a_chunk"]
        ),
        "calls a second, Route / echo": lambda each: each["route"]["per_s"] / each["echo"]["per_s"],
        "calls a second, Route / echo, same set-up": lambda each: (
            each["route"]["per_s"] / each["echo, same set-up"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, same intake": lambda each: (
            each["route"]["per_s"] / each["echo, same intake"]["per_s"]
        ),
        "calls a second, Route / echo, a new estimate in each call": lambda each: (
            each["route, new"]["per_s"] / each["echo"]["per_s"]
        ),
        "CPU a call, Route's server / echo": lambda each: each["route"]["server_us"] / each["echo"]["server_us"],
        "calls a second, Route / echo, with the big catalogue": lambda each: (
            each["route, grown"]["per_s"] / each["echo, grown"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, same intake, with the big catalogue": lambda each: (
            each["route, grown"]["per_s"] / each["echo, same intake, grown"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, with the big catalogue": lambda each: (
            each["route, grown"]["per_s"] / each["echo, same set-up, grown"]["per_s"]
        ),
        "calls a second, Route / echo, a new estimate in each call, with the big catalogue": lambda each: (
            each["route, new, grown"]["per_s"] / each["echo, grown"]["per_s"]
        ),
        "calls a second, Route / echo, in JSON through Envoy": lambda each: (
            each["route in JSON"]["per_s"] / each["echo in JSON"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, in JSON through Envoy": lambda each: (
            each["route in JSON"]["per_s"] / each["echo, same set-up in JSON"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, in JSON, both through our Envoy": lambda each: (
            each["route in JSON"]["per_s"] / each["echo, same set-up, behind our Envoy in JSON"]["per_s"]
        ),
        "calls a second, Route / echo, same set-up, same intake, in JSON through Envoy": lambda each: (
            each["route in JSON"]["per_s"] / each["echo, same intake in JSON"]["per_s"]
        ),
        "CPU a call in JSON, all of ours / echo and its Envoy": lambda each: (
            each["route in JSON"]["us"] / each["echo in JSON"]["us"]
        ),
        "CPU a call in JSON, our Envoy / the echo's": lambda each: (
            each["route in JSON"]["envoy_us"] / each["echo in JSON"]["envoy_us"]
        ),
        "CPU a call in JSON, our Envoy / a plain one, both before our server": lambda each: (
            each["route in JSON"]["envoy_us"] / each["route behind a plain Envoy in JSON"]["envoy_us"]
        ),
    }
    found = {name: [ratio(each) for each in rounds] for name, ratio in ratios.items()}
    return {
        "medians": medians,
        "ratios": {name: median(values) for name, values in found.items()},
        "least": {name: min(values) for name, values in found.items()},
        "greatest": {name: max(values) for name, values in found.items()},
    }


def markdown(found: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """Return the report; `before` is what another run found, to compare the ratios with."""
    about, medians, ratios = found["about"], found["summary"]["medians"], found["summary"]["ratios"]
    least, greatest = found["summary"]["least"], found["summary"]["greatest"]

    def figure(name: str, digits: int = 0) -> str:
        return f"{medians[name]:,.{digits}f}"

    def requests(what: str, parts: Sequence[str]) -> str:
        us = " | ".join(figure(f"{what}: {part}_us") if part else "" for part in parts)
        times = f"{figure(f'{what}: p50_ms', 2)} | {figure(f'{what}: p99_ms', 2)}"
        return f"{figure(f'{what}: per_s')} | {times} | {us} | {medians[f'{what}: core']:.2f}"

    plain_chunk = figure("streams plain: plain_us_a_chunk", 2)
    ours, plain, server = ("envoy", "server", "postgres"), ("plain", "", ""), ("", "server", "postgres")
    bare = ("envoy", "server", "")
    at_first, grown = figure("models: at first"), figure("models: grown")
    goals = {"CPU a chunk, our Envoy / plain": "at most 2"} | {
        name: "at least 0.8"
        for name in ratios
        if name.startswith("calls a second, Route / echo")
        and not any(told in name for told in ("a new estimate", "same intake"))
    }
    lines = [
        "# Performance",
        "",
        "Made by `make bench`, from measurements of one machine; the ratios say more than the figures.",
        f"All that is measured runs on one core, load and mock provider on another ({about['cores']}).",
        f"Figures are medians of {about['rounds']} rounds of {about['seconds']:g} s for each figure, in which the",
        "compared ones took turns. The single rounds are in `performance.json`. CPU is that of all threads of the",
        "processes, by their own clocks. Every answer was compared with what it must be, and every request that was",
        "answered was found recorded.",
        "",
        f"- {about['date']}, commit {about['commit']}",
        f"- {about['cpus']} CPUs, {about['cpu']}, {about['memory_gib']} GiB, {about['system']}",
        "- " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
        "",
        "## Ratios",
        "",
        "| | median | least | greatest | goal |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {ratios[name]:.3g} | {least[name]:.3g} | {greatest[name]:.3g} | {goals.get(name, '')} |"
            for name in ratios
        ),
        "",
        *(_beside(found, before) if before else []),
        "## Why not more",
        "",
        f"- Route over gRPC: of its {figure('route: server_us')} µs gRPC alone takes",
        f"  {figure('echo, same intake: server_us')} with our intake. grpc.aio's own way takes",
        f"  {figure('echo, same set-up: server_us')} in a process set up as ours,",
        f"  {figure('echo: server_us')} as it comes. The decision's record takes Postgres",
        f"  {figure('route: postgres_us')} more. The rest is in `server-cost.md`.",
        f"- In JSON: our Envoy takes {figure('route in JSON: envoy_us')} µs,",
        f"  a plain one before the same server {figure('route behind a plain Envoy in JSON: envoy_us')},",
        f"  the echoes' {figure('echo, same intake in JSON: envoy_us')},",
        f"  {figure('echo, same set-up in JSON: envoy_us')} and {figure('echo in JSON: envoy_us')}:",
        "  slower answers wake an Envoy up more often.",
        "  What each part of ours costs is in `envoy-cost.md`.",
        f"- Chat: {' + '.join(figure(f'saturated ours: {part}_us') for part in ours)} µs for Envoy, server and",
        "  Postgres, by file and by statement in `server-cost.md`.",
        "",
        "## Chat requests",
        "",
        f"Answers in one piece of {len(ANSWER)} bytes. Ours checks the token at Envoy and at the server, decides among",
        "three providers, holds money of a budget, reads and audits three credentials, notes the request, and records",
        "tokens, cost and health; Postgres is durable (fsync). Plain Envoy is the same binary with only a router.",
        "All requests ask the same, so that the ranking is taken from memory; the rest is done for each.",
        "",
        "| | requests/s | p50 ms | p99 ms | Envoy µs | server µs | Postgres µs | cores busy |",
        "|---|---|---|---|---|---|---|---|",
        f"| ours, {IN_FLIGHT} in flight | {requests('saturated ours', ours)} |",
        f"| plain Envoy, {IN_FLIGHT} in flight | {requests('saturated plain', plain)} |",
        f"| ours, {CALM_PER_S:g} a second | {requests('calm ours', ours)} |",
        f"| plain Envoy, {CALM_PER_S:g} a second | {requests('calm plain', plain)} |",
        f"| the decision alone, {IN_FLIGHT} in flight | {requests('decisions', server)} |",
        "",
        "µs are CPU time a request, until it is recorded. Fewer requests a second cost more each: who wakes up for one",
        "alone finds nothing else to do. The decision alone is asked for as Envoy does, without Envoy.",
        "",
        "## Streams",
        "",
        f"{STREAMS} streams at once, a chunk of {len(EVENT)} bytes every {TICK_S * 1000:g} ms in each, measured in",
        "their middle; what the parts use when nobody asks for anything is taken off.",
        "",
        "| | chunks/s | Envoy µs a chunk | server µs a chunk | Postgres µs a chunk |",
        "|---|---|---|---|---|",
        "| ours | "
        + " | ".join(
            [figure("streams ours: chunks_per_s"), *(figure(f"streams ours: {part}_us_a_chunk", 2) for part in ours)]
        )
        + " |",
        f"| plain Envoy | {' | '.join([figure('streams plain: chunks_per_s'), plain_chunk])} | | |",
        "",
        "## Route over gRPC",
        "",
        f"{IN_FLIGHT} in flight over four connections. The echo is a bare grpc.aio server on uvloop that answers with",
        "the bytes of one of Route's answers: as it comes; in a process set up as our server's (how gRPC's threads",
        "take turns with Python's and wake it up, and who reads the sockets: `runtime/grpc_server.py`, `cli.py`); and",
        "with our server's own way to take calls from gRPC too (`runtime/intake.py`): the least a call costs here.",
        "Of the big catalogue's models, all that were added can be chosen.",
        "Where every call asks the same, Route takes its decision from memory. With a new estimate of tokens in each",
        "call it weighs all candidates each time. Real requests are between the two.",
        "",
        "| | calls/s | p50 ms | p99 ms | Envoy µs | server µs | Postgres µs | cores busy |",
        "|---|---|---|---|---|---|---|---|",
        f"| Route, {at_first} models | {requests('route', server)} |",
        f"| the same, a new estimate in each call | {requests('route, new', server)} |",
        f"| echo | {requests('echo', ('', 'server', ''))} |",
        f"| echo, same set-up | {requests('echo, same set-up', ('', 'server', ''))} |",
        f"| echo, same set-up, same intake | {requests('echo, same intake', ('', 'server', ''))} |",
        f"| Route, {grown} models | {requests('route, grown', server)} |",
        f"| the same, a new estimate in each call | {requests('route, new, grown', server)} |",
        f"| echo, in turn with that | {requests('echo, grown', ('', 'server', ''))} |",
        f"| echo, same set-up | {requests('echo, same set-up, grown', ('', 'server', ''))} |",
        f"| echo, same set-up, same intake | {requests('echo, same intake, grown', ('', 'server', ''))} |",
        "",
        "## Route in JSON through Envoy",
        "",
        f"{IN_FLIGHT} connections. The echo's Envoy is the same binary with as many threads, and has nothing but the",
        "transcoder and a router. Ours checks the token, the user's rate, the size and the fields of the request, and",
        "writes an access log. An echo behind ours shows what Route alone costs, behind a plain one what all does.",
        "",
        "| | calls/s | p50 ms | p99 ms | Envoy µs | server µs | Postgres µs | cores busy |",
        "|---|---|---|---|---|---|---|---|",
        f"| Route, {at_first} models | {requests('route in JSON', ours)} |",
        f"| the same behind an Envoy like the echo's | {requests('route behind a plain Envoy in JSON', bare)} |",
        f"| echo | {requests('echo in JSON', bare)} |",
        f"| echo, same set-up | {requests('echo, same set-up in JSON', bare)} |",
        f"| the same behind our Envoy | {requests('echo, same set-up, behind our Envoy in JSON', bare)} |",
        f"| echo, same set-up, same intake | {requests('echo, same intake in JSON', bare)} |",
        "",
    ]
    return "\n".join(lines)


def _ratio(each: Mapping[str, Figures], what: str, name: str) -> float:
    return each[f"{what} ours"][name] / each[f"{what} plain"][name]


def _beside(found: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Tell how far two runs agree."""
    now, then = found["summary"]["ratios"], before["summary"]["ratios"]
    echo = "echo: server_us"
    speed = found["summary"]["medians"][echo] / before["summary"]["medians"][echo]
    return [
        "## The run before",
        "",
        f"Of {before['about']['date']}, commit {before['about']['commit']}, on {before['about']['cpu']}.",
        f"The echo's CPU a call, which no change of ours touches, is {speed:.2f} times what it was: the machine.",
        "Where a run's own rounds are further apart than the two runs (least, greatest above), that is the machine.",
        "",
        "| | then | now | difference |",
        "|---|---|---|---|",
        *(
            f"| {name} | {then[name]:.3g} | {now[name]:.3g} | {now[name] / then[name] - 1:+.0%} |"
            for name in now
            if name in then
        ),
        "",
    ]
