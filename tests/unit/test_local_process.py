from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from llmrouter_server.runtime.local_process import Child

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TIMES = 20
LIMIT_S = 30.0


async def test_a_program_s_own_exit_code_is_told_however_often_it_is_signalled_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child("program", tmp_path / "log")
    async with asyncio.timeout(LIMIT_S):
        for _ in range(TIMES):
            await child.start([sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"], env={})
            while child.is_running:
                child.signal(signal.SIGCONT)
                await asyncio.sleep(0)
            assert await child.wait() == 7
    assert not caplog.records


async def test_one_that_has_ended_is_signalled_no_more(tmp_path: Path) -> None:
    child = Child("program", tmp_path / "log")
    child.signal(signal.SIGTERM)  # it was never started
    await child.start([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], env=dict(os.environ))
    child.signal(signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        assert await child.wait() == -signal.SIGKILL
    child.signal(signal.SIGTERM)
    assert await child.wait() == -signal.SIGKILL
