"""Separate process for tasks that may crash, hang or exhaust memory; it is replaced when they do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import psutil

from .cell import Cell

_SECONDS_TO_START = 120.0
_LOOK_EVERY = 0.05
_LAST_WORDS = 500
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


@dataclass(frozen=True)
class Ended:
    """End of a task.

    Attributes:
        how: `"done"`, or the kind of failure: `"timed out"`, `"crashed"`, `"out of memory"`, `"error"`.
        result: Result of the task, or a description of the failure.
    """

    how: str
    result: Any


class GuardError(RuntimeError):
    """The process that runs cells cannot be started."""


class Guard:
    """Runner of tasks in a separate process, one at a time, within their limits.

    Args:
        threads: Threads that libraries may use in the process.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._words: IO[bytes] | None = None

    def run(self, what: str, cell: Cell) -> Ended:
        """Run `"measure"` or `"time"` on a cell.

        Raises:
            GuardError: The process does not start.
        """
        connection, process = self._started()
        try:
            connection.send((what, cell))
        except (BrokenPipeError, ConnectionResetError):  # It died while idle.
            self.close()
            connection, process = self._started()
            connection.send((what, cell))
        limits = cell.limits
        watched = psutil.Process(process.pid)
        allowed = watched.memory_info().rss + limits.memory
        deadline = time.monotonic() + limits.seconds
        while True:
            try:
                if connection.poll(_LOOK_EVERY):
                    return Ended(*connection.recv())
                resident = watched.memory_info().rss
            except (EOFError, ConnectionResetError, psutil.NoSuchProcess):
                return self._dead(process)
            if resident > allowed:
                self.close()
                return Ended("out of memory", f"more than {limits.memory >> 20} MB were resident")
            if time.monotonic() > deadline:
                self.close()
                return Ended("timed out", f"not done after {limits.seconds:g} s")

    def close(self) -> None:
        """End the process and its children."""
        if self._process is not None:
            _kill(self._process)
        for opened in (self._connection, self._words):
            if opened is not None:
                opened.close()
        self._process = self._connection = self._words = None

    def _started(self) -> tuple[Connection, subprocess.Popen[bytes]]:
        if self._connection is not None and self._process is not None:
            return self._connection, self._process
        ours, theirs = multiprocessing.Pipe()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", f"{__package__}.worker", str(theirs.fileno()),
                str(self.threads),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            env={**os.environ, **threads, "PYTHONPATH": _search_path()},
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self._connection = ours
        try:
            if not ours.poll(_SECONDS_TO_START):
                self.close()
                raise GuardError(f"a process for cells was not ready in {_SECONDS_TO_START:g} s")
            ours.recv()
        except EOFError as error:
            words = self._last_words()
            self.close()
            raise GuardError(f"a process for cells does not start: {words}") from error
        return ours, self._process

    def _dead(self, process: subprocess.Popen[bytes]) -> Ended:
        process.wait()
        code, words = process.returncode, self._last_words()
        self.close()
        if "bad_alloc" in words or "MemoryError" in words:
            return Ended("out of memory", words)
        if code < 0:
            how = f"the process was ended by {signal.Signals(-code).name}"
        else:
            how = f"the process exited with status {code}"
        return Ended("crashed", f"{how}: {words}" if words else how)

    def _last_words(self) -> str:
        if self._words is None:
            return ""
        length = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(length - _LAST_WORDS, 0))
        return " ".join(self._words.read().decode(errors="replace").split())


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and the session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _search_path() -> str:
    """Import path of the new process: this package first, then the path of this process."""
    package = str(Path(__file__).parent.parent.parent)
    given = os.environ.get("PYTHONPATH", "")
    # The parent folder is needed only if the package is imported from there; else it is installed.
    root = __package__.split(".")[0]
    parents = [package] if (Path(package) / root / "studies").exists() else []
    return os.pathsep.join([*parents, *([given] if given else [])])
