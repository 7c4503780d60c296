"""TensorZero's gateway, as its Python package embeds it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bench.rivals.install import HERE, locked_version, python_packages
from bench.rivals.rival import Launch, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rivals.rival import Say

CONFIG = """
[gateway]
observability.enabled = false
auth.enabled = false

[models.auto]
routing = ["mock"]

[models.auto.providers.mock]
type = "openai"
api_base = "http://127.0.0.1:{provider_port}/v1/"
model_name = "bench-model"
api_key_location = "env::BENCH_PROVIDER_KEY"
"""


class TensorZero:
    name = "TensorZero"
    version = locked_version("requirements-tensorzero.txt", r"^tensorzero==(\S+)")
    on = "the provider's key; reads and writes the request and the answer anew"
    off = (
        "keys of its own and limits: they need a Postgres with pg_cron, and the log of requests one too or ClickHouse; "
        "neither comes in a package. All of that would cost it more"
    )
    asks_who = False

    def install(self, cache: Path, say: Say) -> Path:
        return python_packages(cache, "tensorzero", say)

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        file = home / "tensorzero.toml"
        file.write_text(CONFIG.format(provider_port=provider_port), encoding="utf-8")
        return Launch(
            command=[str(installed / "bin" / "python"), str(HERE / "tensorzero_main.py"), str(file)],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(home), "BENCH_PROVIDER_KEY": "sk-bench-provider"},
            target=Target(port=port, path="/openai/v1/chat/completions", model="tensorzero::model_name::auto"),
            port_line=re.compile(r"serves at http://127\.0\.0\.1:(\d+)/"),
        )
