"""docs/user-guide.md: every command is run, and prints what stands below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.answers import Answer
from gateway.behaviour import ok
from gateway.provider_server import provider
from gateway.refusals import status
from services.cookbook import DOCS, Shell, environment, play, steps_of
from services.serving import serve_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from llmrouter_server.runtime.local_stack import LocalStack

DOCUMENT = DOCS / "user-guide.md"
ADDRESS, PROVIDER = "127.0.0.1:8080", "http://localhost:8000/v1"


async def test_every_command_prints_what_stands_below_it(
    own_stack: Callable[..., AbstractAsyncContextManager[LocalStack]], tmp_path: Path
) -> None:
    well = ok(Answer(content="Hello! How can I help?"))
    async with provider("vLLM") as vllm, own_stack() as stack:
        vllm.behave(well, well, well, status(500), well)  # its fourth request is the one that is to fail over
        async with Shell(tmp_path, environment(stack, GROQ_KEY="gsk_0123456789abcdef")) as shell:
            await serve_from(stack, vllm.url)
            edge = f"127.0.0.1:{stack.ports.http}"
            elsewhere = {ADDRESS: edge, PROVIDER: vllm.url}
            # Decisions and what was used can be read a moment after the answer; once it is all there it stays.
            await play(DOCUMENT, steps_of(DOCUMENT.read_text()), shell, elsewhere, later=["/decisions/", "/usage"])
        assert len(vllm.chats) == 5
