"""Bifrost, as its package for npm starts it: a launcher, which downloads the gateway.

Where this was written the download could not be reached: the configuration follows the documentation and has not run.
What it says of itself is checked like everybody's: by its answers, and by its refusing a wrong key.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from bench.rivals.install import node_packages, program, run
from bench.rivals.rival import Launch, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rivals.rival import Say

KEY = "sk-bf-bench-0123456789"


class Bifrost:
    name = "Bifrost"
    version = "v2.0.0"
    on = "a virtual key with a budget; a log of requests in SQLite"
    off = "nothing"
    asks_who = True

    def install(self, cache: Path, say: Say) -> Path:
        installed = node_packages(cache, "bifrost", say)
        run([*self._command(installed), "-help"], XDG_CACHE_HOME=str(installed))  # downloads it, unless it is there
        return installed

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        allowed = {"provider": "openai", "allowed_models": ["*"], "key_ids": ["*"], "weight": 1}
        config = {
            "client": {"enable_logging": True, "enforce_auth_on_inference": True, "drop_excess_requests": False},
            "providers": {
                "openai": {
                    "keys": [{"name": "mock", "value": "sk-bench-provider", "models": ["*"], "weight": 1.0}],
                    "network_config": {"base_url": f"http://127.0.0.1:{provider_port}"},
                }
            },
            "governance": {
                "virtual_keys": [{"id": "bench", "name": "bench", "value": KEY, "provider_configs": [allowed]}],
                "budgets": [{"id": "bench", "max_limit": 1_000_000, "reset_duration": "1M", "virtual_key_id": "bench"}],
            },
            "config_store": {"enabled": True, "type": "sqlite", "config": {"path": "./config.db"}},
            "logs_store": {"enabled": True, "type": "sqlite", "config": {"path": "./logs.db"}},
        }
        (home / "config.json").write_text(json.dumps(config), encoding="utf-8")
        options = ["-app-dir", str(home), "-host", "127.0.0.1", "-port", str(port)]
        return Launch(
            command=[*self._command(installed), *options],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(home), "XDG_CACHE_HOME": str(installed)},
            target=Target(port=port, model="openai/bench-model", tokens=[KEY]),
        )

    def _command(self, installed: Path) -> list[str]:
        launcher = installed / "node_modules" / "@maximhq" / "bifrost" / "bin.js"
        return [program("node"), str(launcher), "--transport-version", self.version]
