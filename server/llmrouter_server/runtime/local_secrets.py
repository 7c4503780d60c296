"""Files that only their owner can read, made once and whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def secret(file: Path, make: Callable[[], str]) -> str:
    """Return the secret in the file, making it first when there is none."""
    if not file.exists():
        write_secret(file, make())
    return file.read_text(encoding="utf-8").strip()


def write_secret(file: Path, text: str) -> None:
    """Write a file of mode 0600, which appears whole or not at all."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)  # left by one that was interrupted
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(descriptor)
    draft.replace(file)
