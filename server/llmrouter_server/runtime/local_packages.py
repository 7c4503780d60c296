"""Finds the programs inside the wheels of the `local` extra, without importing their Python code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

REPAIR = "remove .venv and run make up again"


class PackageError(Exception):
    """A program of the local stack cannot be used; the message is one sentence that says what to do."""


def package_dir(package: str) -> Path:
    """Return a package's folder; PackageError when it is not installed."""
    found = importlib.util.find_spec(package)  # finds a top-level package without running it
    if found is None or not found.submodule_search_locations:
        raise PackageError(f"the package {package} is missing: install llmrouter-server[local], or {REPAIR}")
    return Path(found.submodule_search_locations[0])


def damaged_file(distribution: str, folder: Path, *packages: str) -> Path | None:
    """Return a file that is missing or has not the size it was installed with, if there is one.

    `folder` holds the distribution's `packages`: where it is installed, or a copy.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.size is not None and file.parts[0] in packages:
            here = folder / file
            if not here.is_file() or here.stat().st_size != file.size:
                return here
    return None
