"""What many requests a second need, worked out from what was measured on one machine."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from bench.scale_recording import BATCH, UNARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.rounds import Figures

RATES = (1_000, 100_000)
BUSY = 0.6
"""How busy a core may be, so that a burst does not wait."""
CORES_OF_A_REPLICA, CORES_OF_A_POSTGRES = 8, 32
CONNECTIONS = 22
"""Of a worker: DB_POOL_MAX, and one that listens for changes."""
MAX_CONNECTIONS = 500
"""Of a Postgres, before its processes cost more than they do."""
MONTH_DAYS, DAY_S = 30, 86_400
CHANGES_A_DAY = 50
"""Of the catalogue, by its admins."""
WIDTH = 120

PROSE = """
Worked out from the figures of this page and of `performance.md`, with at most {busy:.0%} of a core busy, an even
load all day, one attempt a request and a budget for every user; nothing of this was tried at such a rate. A chat
request costs Envoy {envoy:,.0f} µs, the server {server:,.0f} µs and Postgres {postgres:,.0f} µs (`performance.md`,
saturated).

**What is shared.** Postgres alone: the catalogue and its snapshots, settings, keys, the ledger with its holds, open
requests, records, sums, decisions, and what replicas saw of providers. A replica remembers; it owns nothing. So
replicas are added and taken away freely, and Postgres is what a deployment outgrows.

**NOTIFY.** A replica is told of each user whose settings, keys or watched spend changed, and of each new snapshot.
Every worker hears everything, so what all of them hear together grows with the rate times the workers (above). A
commit that notifies takes one lock of the whole Postgres, so such commits go one after another; recording makes one
for a batch and not for a record, which puts the bound at batches. Past it, spend has to be told by user to the
replicas that know the user, or be read when it is needed.

**Where a read replica enters.** GetUsage, series, records and the export read what may be a second old: they can go
to a physical replica as soon as they are a noticeable part of Postgres' CPU. Route cannot: it must see its own
caller's last change, and it hardly reads.

**Where Citus enters.** Everything hot is keyed by user, so settings, keys, ledger, request ids, records and sums
spread over nodes by user_id, and the catalogue's tables become reference tables. It takes changes: holds, open
requests and records need user_id in their primary keys, a batch has to be grouped by node before it is written, and
spend has to be told by other means than one node's NOTIFY. One Postgres of {cores} cores is full at about
{most:,.0f} records a second by its CPU alone, if those come in batches; until then it is not worth that.

**Unary or batched.** One report a call costs the server {unary_server:.1f} times as much CPU as one in a batch, and
Postgres {unary_postgres:.1f} times.
"""


def on_paper(found: Mapping[str, Mapping[str, Figures]], performance: Mapping[str, float]) -> Sequence[str]:
    """Return the section; `performance`: the medians of `make bench`."""
    needs = [_needs(rate, found, performance) for rate in RATES]
    rows = [[name, *(each[name] for each in needs)] for name in needs[0]]
    unary, batch = (found["recording"][f"{name}, 1 workers"] for name in (UNARY, BATCH))
    told = PROSE.format(
        busy=BUSY,
        envoy=performance["saturated ours: envoy_us"],
        server=performance["saturated ours: server_us"],
        postgres=performance["saturated ours: postgres_us"],
        cores=CORES_OF_A_POSTGRES,
        most=CORES_OF_A_POSTGRES * BUSY * 1e6 / batch["postgres_us"],
        unary_server=unary["server_us"] / batch["server_us"],
        unary_postgres=unary["postgres_us"] / batch["postgres_us"],
    )
    first, *others = (textwrap.fill(each, WIDTH, break_on_hyphens=False) for each in told.strip().split("\n\n"))
    return [
        "## On paper: 1,000 and 100,000 chat requests a second",
        "",
        first,
        "",
        f"| | {' | '.join(f'{rate:,}/s' for rate in RATES)} |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "\n\n".join(others),
    ]


def _needs(rate: int, found: Mapping[str, Mapping[str, Figures]], performance: Mapping[str, float]) -> dict[str, str]:
    envoy, server, postgres = (
        math.ceil(rate * performance[f"saturated ours: {part}_us"] / 1e6 / BUSY)
        for part in ("envoy", "server", "postgres")
    )
    replicas = max(2, math.ceil(server / CORES_OF_A_REPLICA))
    workers = math.ceil(server / replicas)
    nodes = math.ceil(postgres / CORES_OF_A_POSTGRES)
    about = found["usage"]["about many"]
    gb_a_day = rate * DAY_S * about["bytes"] / about["rows"] / 1e9
    connections = replicas * workers * CONNECTIONS
    many = found["catalogue"]["many"]
    snapshots_gb = CHANGES_A_DAY * MONTH_DAYS * many["snapshot_kb"] / 1e6
    batches = rate / found["recording"][f"{BATCH}, 1 workers"]["per_s"]
    return {
        "Envoy, cores": f"{envoy:,}",
        "server, cores (a worker each)": f"{server:,}",
        f"replicas of {CORES_OF_A_REPLICA} cores, at least two": f"{replicas:,}",
        "memory of a replica, nobody remembered": f"{workers * found['start']['1 workers']['rss_mb'] / 1e3:.1f} GB",
        "Postgres, cores": f"{postgres:,}",
        f"Postgres nodes of {CORES_OF_A_POSTGRES} cores": f"{nodes:,}",
        f"connections of the servers, {CONNECTIONS} a worker": f"{connections:,}"
        + (f" (a pooler from {MAX_CONNECTIONS} on)" if connections > MAX_CONNECTIONS else ""),
        "rows of usage a day": f"{rate * DAY_S / 1e6:,.0f} M",
        "disk a day, records and sums": f"{gb_a_day:,.0f} GB",
        "a month's partition": f"{rate * DAY_S * MONTH_DAYS / 1e9:,.1f} G rows"
        + (" (by day, and by node)" if rate * DAY_S * MONTH_DAYS > 1e10 else ""),
        "spend told, at most one a record": f"{rate:,} a second, heard {rate * replicas * workers:,} times",
        "recording, share of one worker here": f"{batches:.2f}",
        f"snapshots of {many['models']:,.0f} models, {CHANGES_A_DAY} changes a day": f"{snapshots_gb:.1f} GB a month",
    }
