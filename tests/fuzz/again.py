"""Where a machine stands still for seconds, what is well is unavailable: it is asked once more, with the same bytes.

A request that makes the server unavailable by itself does so again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import http_json

if TYPE_CHECKING:
    from collections import Counter

    from llmrouter_server.runtime.local_stack import LocalStack

READY_S = 30.0
MOST = 5
AGAIN = "asked again"


def wait_to_ask_again(stack: LocalStack, outcomes: Counter[str]) -> None:
    """Wait until the whole stack answers. That is counted, and wanted only a few times."""
    outcomes[AGAIN] += 1
    assert outcomes[AGAIN] <= MOST
    url, token, end = f"{stack.base_url}/settings", stack.identity.mint("user"), time.monotonic() + READY_S
    while http_json.call("GET", url, token=token).status != 200:
        assert time.monotonic() < end
        time.sleep(0.1)
