"""End of a process and of everything that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil

_SECONDS = 5.0


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session, its descendants and its session.

    A process within a call of the kernel cannot be killed; it is not waited for.
    """
    descendants: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    for descendant in descendants:
        with contextlib.suppress(psutil.Error):
            descendant.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS)
