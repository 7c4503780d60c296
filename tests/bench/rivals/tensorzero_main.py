"""Runs TensorZero's embedded gateway until it is told to stop: `python tensorzero_main.py <configuration>`.

Run by the Python that has it installed, which has nothing of ours. This is what `patch_openai_client` of its package
does, without a client.
"""

from __future__ import annotations

import signal
import sys

import tensorzero

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    gateway = tensorzero._start_http_gateway(
        config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    sys.stdout.write(f"serves at {gateway.base_url}\n")
    sys.stdout.flush()
    signal.pause()
