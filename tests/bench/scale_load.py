"""A load of gRPC calls as bench.grpc_load makes it, read from standard input: it may be longer than an argument.

It ends with its calls, not with its time, and so the first ones count too.
"""

from __future__ import annotations

import json
import sys

import uvloop

from bench import grpc_load


def tell(result: dict[str, object]) -> None:
    """Print it, whole: with PYTHONUNBUFFERED set, standard output may take a part of a long text and say nothing."""
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as printed:
        json.dump(result, printed)


if __name__ == "__main__":
    grpc_load.WARM_UP = 0.0
    tell(uvloop.run(grpc_load.run(grpc_load.Load(**json.loads(sys.stdin.read())))))
