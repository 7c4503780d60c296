"""Portkey's gateway, without its page for developers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench.rivals.install import HERE, locked_version, node_packages, program
from bench.rivals.rival import Launch, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rivals.rival import Say


class Portkey:
    name = "Portkey gateway"
    version = locked_version(
        "portkey/package-lock.json", r'"node_modules/@portkey-ai/gateway": \{\s*"version": "([^"]+)"'
    )
    on = "a header names the provider; the caller sends the provider's key"
    off = "keys of its own, budgets and logs: the open gateway has none"
    asks_who = False

    def install(self, cache: Path, say: Say) -> Path:
        program("node")
        return node_packages(cache, "portkey", say)

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        script = installed / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        keep_local = (HERE / "portkey" / "loopback.mjs").as_uri()
        return Launch(
            command=[program("node"), "--import", keep_local, str(script), f"--port={port}", "--headless"],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(home), "NODE_ENV": "production"},
            target=Target(
                port=port,
                tokens=["sk-bench-provider"],
                headers={
                    "x-portkey-provider": "openai",
                    "x-portkey-custom-host": f"http://127.0.0.1:{provider_port}/v1",
                },
            ),
        )
