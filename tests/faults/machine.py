"""Real means of faults: programs in processes of their own, and disks that are small."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = "from implicitly.cli import main; main()"


def _default_signals() -> None:
    """Undo what `nohup` and the background of a shell do to the signals of their processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A Python program in a process."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    given["preexec_fn"] = _default_signals
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], **given)


def forked(act: Any) -> int:
    """A process that is forked from this one and runs `act`; its number."""
    process = os.fork()
    if process == 0:
        try:
            act()
        except BaseException as error:  # The parent judges by the exit status.
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return process


class SmallDisk:
    """A small file system in memory, at a folder; it can grow."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def grow(self, size: str) -> None:
        """Make room."""
        _mount("-o", f"remount,size={size}", str(self.place))


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[SmallDisk | None]:
    """A disk of a size such as `"64k"`; `None` where this machine lets us make none."""
    place.mkdir(parents=True, exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)):
        yield None
        return
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def _mount(*arguments: str) -> int:
    try:
        return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode
    except OSError:
        return 1
