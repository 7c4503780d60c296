"""LiteLLM's proxy, with one worker, which its guide for production wants for each core."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from bench.rivals.install import locked_version, python_packages
from bench.rivals.rival import Launch, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rivals.rival import Say

KEY = "sk-bench-litellm-0123456789"


class LiteLlm:
    name = "LiteLLM proxy"
    version = locked_version("requirements-litellm.txt", r"^litellm==(\S+)")
    on = "master key; a budget of the provider, in memory; cost of each request; JSON logs of errors"
    off = (
        "virtual keys, their budgets and the log of spend: they need its database, whose client, prisma, downloads an "
        "engine from outside the package registries that could not be reached. All of that would cost it more"
    )
    asks_who = True

    def install(self, cache: Path, say: Say) -> Path:
        return python_packages(cache, "litellm", say)

    def launch(self, installed: Path, home: Path, port: int, provider_port: int) -> Launch:
        config = {
            "model_list": [
                {
                    "model_name": "auto",
                    "litellm_params": {
                        "model": "openai/bench-model",
                        "api_base": f"http://127.0.0.1:{provider_port}/v1",
                        "api_key": "sk-bench-provider",
                        "input_cost_per_token": 3e-6,
                        "output_cost_per_token": 15e-6,
                    },
                }
            ],
            "litellm_settings": {"request_timeout": 600, "set_verbose": False, "json_logs": True},
            "router_settings": {
                "provider_budget_config": {"openai": {"budget_limit": 1_000_000, "time_period": "30d"}}
            },
            "general_settings": {"master_key": KEY},
        }
        file = home / "litellm.json"  # which is YAML too
        file.write_text(json.dumps(config), encoding="utf-8")
        command = [
            str(installed / "bin" / "litellm"),
            "--config",
            str(file),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        return Launch(
            command=[*command, "--telemetry", "False"],
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(home),
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_LOG": "ERROR",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",  # it takes the mock's for a model that has lost its way
            },
            target=Target(port=port, tokens=[KEY]),
        )
