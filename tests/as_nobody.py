"""What root's tests try as an ordinary user."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def run_as_nobody(code: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code as nobody; skips when no Python with our packages is open to it."""
    nobody = pwd.getpwnam("nobody")
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):

        def run(*command: str, python: str = python) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [python, "-c", *command],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                cwd=home,
                env={"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
            )

        with contextlib.suppress(OSError):
            if run("import asyncpg, llmrouter_server").returncode == 0:
                return run(code, *arguments)
    pytest.skip("Python or its packages are closed to other accounts")
