"""Installs a rival's locked packages into a cache, once. Nothing of it is ever among the product's dependencies."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.rivals.rival import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.rivals.rival import Say

HERE = Path(__file__).parent
LONGEST_S = 900


def python_packages(cache: Path, name: str, say: Say) -> Path:
    """Return a virtual environment with what requirements-<name>.txt locks."""
    lock = HERE / f"requirements-{name}.txt"

    def install(folder: Path) -> None:
        run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run([*pip, "install", "--require-hashes", "-r", str(lock)])

    return _once(cache, name, [lock], install, say)


def node_packages(cache: Path, name: str, say: Say) -> Path:
    """Return a folder with the `node_modules` that <name>/package-lock.json locks. No package's script is run."""
    files = [HERE / name / "package.json", HERE / name / "package-lock.json"]

    def install(folder: Path) -> None:
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder)
        run([program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])

    return _once(cache, name, files, install, say)


def locked_version(file: str, pattern: str) -> str:
    """Return the version that a lock file in this folder names."""
    found = re.search(pattern, (HERE / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def program(name: str) -> str:
    """Return where a program is; UnavailableError when this machine has none."""
    found = shutil.which(name)
    if found is None:
        raise UnavailableError(f"this machine has no {name}")
    return found


def run(command: Sequence[str], **variables: str) -> None:
    """Run it to its end; UnavailableError with the last line that it wrote when it fails."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{Path(command[0]).name} did not end within {LONGEST_S} s") from None
    if done.returncode != 0:
        raise UnavailableError(f"{Path(command[0]).name} failed: {last_words(done.stdout)}")


def last_words(text: str) -> str:
    """Return the last line that says something, without places of this machine."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w{3}", line)]
    telling = [line for line in lines if re.search(r"(?i)error|cause|fail|not found", line)]
    return re.sub(r"(/[\w.@+-]+){2,}/?", "…", (telling or lines or ["nothing"])[-1])[:300]


def _once(cache: Path, name: str, locks: Sequence[Path], install: Callable[[Path], None], say: Say) -> Path:
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    if (folder / ".installed").exists():
        return folder
    say(f"installing {name} ...")
    shutil.rmtree(folder, ignore_errors=True)
    install(folder)
    (folder / ".installed").touch()
    return folder
