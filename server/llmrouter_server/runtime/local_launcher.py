"""Becomes another program, as another account if asked, and on Linux one that dies with its parent.

Run as a script by `local_process`, on the bare interpreter: what must happen between fork and exec happens here, since
`preexec_fn` is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_RUN = 126
"""Exit code, as in a shell: the program is there but cannot be run."""


def main(parent: str, death_signal: str, uid: str, gid: str, *command: str) -> None:
    """Become `command`, or raise OSError. Empty uid and gid keep the account."""
    if uid:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":  # after setuid, which clears it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            raise OSError("its parent is gone")  # before prctl could notice
    os.umask(0o077)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"cannot run {sys.argv[5]}: {error}\n")
        sys.exit(CANNOT_RUN)
