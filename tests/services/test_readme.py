"""README.md: what a newcomer copies works, and prints what stands there; `make` alone is left to others."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.answers import Answer
from gateway.behaviour import ok
from gateway.provider_server import provider
from services.cookbook import DOCS, Shell, environment, play, steps_of
from services.serving import serve_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llmrouter_server.runtime.local_stack import LocalStack

README = DOCS.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
WITHOUT = ("make ",) if shutil.which("grpcurl") else ("make ", "grpcurl ")


async def test_what_a_newcomer_copies_works(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], tmp_path: Path
) -> None:
    steps = [
        replace(step, command=step.command.replace(".venv/bin/", ""))  # whose folder is in this shell's PATH
        for step in steps_of(TEXT)
        if not step.command.startswith(WITHOUT)
    ]
    assert len(steps) >= 2
    async with provider("vLLM") as vllm, own_stack() as stack:
        vllm.behave(ok(Answer(content="Hello! How can I help?")))
        await serve_from(stack, vllm.url)
        elsewhere = {"127.0.0.1:8080": f"127.0.0.1:{stack.ports.http}", "127.0.0.1:50051": stack.grpc_address}
        async with Shell(tmp_path, environment(stack)) as shell:
            await play(README, steps, shell, elsewhere)
            said = []
            for program in PROGRAMS:
                for written, found in elsewhere.items():
                    program = program.replace(written, found)  # noqa: PLW2901 - the same program, here
                said.append(await shell.run(f"python - <<'END'\n{program}END"))
    assert said == [(0, "Local vLLM Qwen/Qwen2.5-32B-Instruct\n"), (0, "Hello! How can I help?\n")]
