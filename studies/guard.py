"""Separate processes for cells, which may crash, hang, exhaust memory or change their process in any way."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from .cell import Cell
from .errors import GuardError, StudyError
from .judging import is_report, unjudged
from .processes.channel import (
    DIGEST,
    LOST,
    Channel,
    ClosedError,
    GarbageError,
    Message,
    hear,
    pair,
    tell,
)
from .processes.killing import kill_tree

_SECONDS_TO_START = 120.0
_SECONDS_TO_BEGIN = 30.0
_SECONDS_TO_END = 6.0
_SECONDS_BETWEEN = 1.0
_ATTEMPTS = 3
_LOOK_EVERY = 0.05
_LAST_WORDS = 500
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# Tasks of this process; no two have the same number.
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Ended:
    """End of a task.

    Attributes:
        how: `"done"`, or the kind of failure: `"timed out"`, `"crashed"`, `"out of memory"`, `"error"`.
        result: Result of the task, or a description of the failure.
        attached: Bytes that belong to the result.
    """

    how: str
    result: Any
    attached: bytes = b""


@dataclass
class _Started:
    """Process of a cell."""

    number: int
    channel: Channel
    words: IO[bytes]
    process: psutil.Process | None = None
    status: int | None = None


class _NotBegunError(Exception):
    """A process has not taken its task on; the cell has not begun."""


class Guard:
    """Runner of cells in separate processes, one at a time, within their limits.

    A worker waits with everything imported. Each cell of a user's file runs in a process that is forked from
    it and ended with the cell, and the value that the method returns is checked in another one. Cells of
    this package's methods share a process as long as they leave it as it was.

    Args:
        threads: Threads that libraries may use in the process.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._worker: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._words: IO[bytes] | None = None
        self._own: tuple[str | None, str | None] = (None, None)
        self._forks = True
        self._cell: _Started | None = None

    def run(self, what: str, cell: Cell) -> Ended:
        """Run `"measure"` or `"time"` on a cell.

        Raises:
            GuardError: No process for cells can be started.
            StudyError: The user's file has changed since the study began.
        """
        if what == "time":
            return self._ask(cell, {"what": "time"})
        solved = self._ask(cell, {"what": "solve"})
        if solved.how != "done":
            return solved
        report = solved.result
        if not is_report(report):
            return Ended("crashed", "the cell wrote an answer that is no report of a solve")
        if report["value"] is None:
            return Ended("done", unjudged(report))
        judged = self._ask(cell, {"what": "judge", "report": report}, solved.attached)
        if judged.how == "done":
            return judged
        return Ended(judged.how, f"while its result was checked: {judged.result}")

    def close(self) -> None:
        """End the worker, the process of a cell, and their children."""
        if self._worker is not None:
            kill_tree(self._worker)
        if self._cell is not None:
            self._forget_cell()
        for opened in (self._control, self._words):
            if opened is not None:
                opened.close()
        self._worker = self._control = self._words = None

    # --- A task ----------------------------------------------------------------------------------

    def _ask(self, cell: Cell, task: Mapping[str, Any], attached: bytes = b"") -> Ended:
        """Give a task to a process; a process that does not take it on is replaced."""
        content = {**task, "cell": base64.b64encode(pickle.dumps(cell)).decode()}
        for attempt in range(_ATTEMPTS):
            started = self._started(cell)
            started.number = next(_NUMBERS)
            try:
                self._begin(started, Message(started.number, content, attached))
            except (_NotBegunError, ClosedError, GarbageError) as error:
                words = self._last_words(started.words)
                self.close()
                if attempt == _ATTEMPTS - 1:
                    raise GuardError(
                        f"processes for cells do not begin: {error}: {words}"
                    ) from error
                continue
            ended, keep = self._watched(started, cell)
            if cell.own is not None or not keep:
                self._end_cell()
            return ended
        raise AssertionError("unreachable")

    def _begin(self, started: _Started, message: Message) -> None:
        if not started.channel.send(message, _SECONDS_TO_BEGIN):
            raise _NotBegunError("the task was not taken")
        deadline = time.monotonic() + _SECONDS_TO_BEGIN
        while time.monotonic() < deadline:
            heard = started.channel.receive(_LOOK_EVERY)
            self._listen(started)
            if heard is not None and heard.number == message.number:
                return
            if heard is None and started.status is not None:
                raise _NotBegunError(f"the process ended with status {started.status}")
        raise _NotBegunError(f"no sign of a beginning after {_SECONDS_TO_BEGIN:g} s")

    def _watched(self, started: _Started, cell: Cell) -> tuple[Ended, bool]:
        """The end of a task that has begun, and true if its process can take another one."""
        limits = cell.limits
        before = _resident(started.process)
        deadline = time.monotonic() + limits.seconds
        while True:
            try:
                answer = started.channel.receive(_LOOK_EVERY)
                while answer is not None and answer.number != started.number:
                    answer = started.channel.receive(0.0)  # A late answer to an earlier task.
                if answer is not None:
                    return _ended(answer)
                self._listen(started)
            except GarbageError as error:
                return Ended(
                    "crashed", f"the cell wrote {error} on the channel of its answer"
                ), False
            except ClosedError:
                return self._dead(started, max(deadline - time.monotonic(), 0.0)), False
            if started.status is not None:
                return self._last_answer(started), False
            resident = _resident(started.process)
            if resident - before > limits.memory:
                said = f"more than {limits.memory >> 20} MB were resident"
                return Ended("out of memory", said), False
            if time.monotonic() > deadline:
                return Ended("timed out", f"not done after {limits.seconds:g} s"), False

    def _last_answer(self, started: _Started) -> Ended:
        """The answer that a process sent before it ended, or a description of its end."""
        with contextlib.suppress(GarbageError, ClosedError):
            while (answer := started.channel.receive(0.0)) is not None:
                if answer.number == started.number:
                    return _ended(answer)[0]
        return self._dead(started, 0.0)

    def _dead(self, started: _Started, seconds: float) -> Ended:
        """A description of the end of a process that has closed its channel."""
        deadline = time.monotonic() + min(seconds, _SECONDS_TO_END)
        while started.status is None and time.monotonic() < deadline:
            try:
                self._listen(started, _LOOK_EVERY)
            except ClosedError:  # The worker has died as well.
                break
        words, status = self._last_words(started.words), started.status
        if status is None and not self._forks and self._worker is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._worker.wait(_SECONDS_TO_END)
        if "bad_alloc" in words or "MemoryError" in words:
            return Ended("out of memory", words)
        if status is None or status == LOST:
            how = "the process closed the channel of its answer"
        elif status < 0:
            how = f"the process was ended by {_signal(-status)}"
        else:
            how = f"the process exited with status {status}"
        return Ended("crashed", f"{how}: {words}" if words else how)

    # --- Processes -------------------------------------------------------------------------------

    def _started(self, cell: Cell) -> _Started:
        """A process for a cell: the one that waits, or a new one."""
        if self._worker is not None and self._own != (cell.own, cell.digest):
            self.close()
        if self._cell is not None:
            return self._cell
        problem = "they cannot be started"
        for _ in range(_ATTEMPTS):
            control = self._ready(cell)
            channel, theirs = pair()
            words = tempfile.TemporaryFile()  # noqa: SIM115
            self._cell = _Started(next(_NUMBERS), channel, words)
            request = {"do": "run", "number": self._cell.number}
            try:
                tell(control, request, (theirs.fileno(), words.fileno()))
                theirs.close()
                heard = hear(control, _SECONDS_TO_BEGIN)
                if heard is not None and "pid" in heard[0]:
                    with contextlib.suppress(psutil.Error):
                        self._cell.process = psutil.Process(heard[0]["pid"])
                    return self._cell
                problem = str(heard[0].get("failed")) if heard else "no answer to a request"
            except (ClosedError, GarbageError) as error:
                problem = str(error)
            finally:
                theirs.close()
            self.close()
            time.sleep(_SECONDS_BETWEEN)  # The system may have no processes left at the moment.
        raise GuardError(f"no process for a cell: {problem}; make room, then resume the study")

    def _listen(self, started: _Started, seconds: float = 0.0) -> None:
        """Take note of what the worker says of the process."""
        if self._control is None:
            raise ClosedError("closed")
        heard = hear(self._control, seconds)
        if heard is not None and "status" in heard[0]:
            started.status = int(heard[0]["status"])

    def _end_cell(self) -> None:
        """End the process of a cell with its children; the worker ends too if it cannot do that."""
        started, control = self._cell, self._control
        if started is None or control is None or not self._forks:
            self.close()
            return
        self._forget_cell()
        deadline = time.monotonic() + _SECONDS_TO_END
        try:
            tell(control, {"do": "end", "number": started.number})
            while time.monotonic() < deadline:
                heard = hear(control, _LOOK_EVERY)
                if heard is not None and heard[0].get("cleared"):
                    return
        except (ClosedError, GarbageError):
            pass  # The worker has died; its processes are ended below.
        self.close()

    def _forget_cell(self) -> None:
        if self._cell is not None:
            self._cell.channel.close()
            self._cell.words.close()
        self._cell = None

    def _ready(self, cell: Cell) -> socket.socket:
        """The connection to a worker, which is started if there is none."""
        if self._control is not None:
            return self._control
        ours, theirs = socket.socketpair()
        self._control, self._own = ours, (cell.own, cell.digest)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        threads = dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        with theirs:
            self._worker = subprocess.Popen(
                [
                    sys.executable, "-m", f"{__package__}.processes.worker", str(theirs.fileno()),
                    str(self.threads), cell.own or "",
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                env={**os.environ, **threads, "PYTHONPATH": _search_path()},
                start_new_session=True,
            )  # fmt: skip
        try:
            heard = hear(ours, _SECONDS_TO_START)
        except (ClosedError, GarbageError) as error:
            words = self._last_words(self._words)
            self.close()
            raise GuardError(f"a process for cells does not start: {words}") from error
        if heard is None:
            self.close()
            raise GuardError(f"a process for cells was not ready in {_SECONDS_TO_START:g} s")
        self._forks = bool(heard[0].get("forks"))
        if heard[0].get("own") != (cell.digest or "")[:DIGEST]:
            self.close()
            raise StudyError(f"{cell.own} has changed since the study began: run it anew")
        return ours

    @staticmethod
    def _last_words(words: IO[bytes] | None) -> str:
        if words is None or words.closed:
            return ""
        length = words.seek(0, os.SEEK_END)
        words.seek(max(length - _LAST_WORDS, 0))
        return " ".join(words.read().decode(errors="replace").split())


def _ended(answer: Message) -> tuple[Ended, bool]:
    """The end that an answer reports, and true if its process is as it was before."""
    how, result = answer.content.get("how"), answer.content.get("result")
    if how not in ("done", "error", "out of memory"):
        return Ended("crashed", "the cell wrote an answer without its parts"), False
    return Ended(how, result, answer.attached), answer.content.get("fit") is True


def _resident(process: psutil.Process | None) -> int:
    try:
        return 0 if process is None else int(process.memory_info().rss)
    except psutil.Error:  # It has ended.
        return 0


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Of real time.
        return f"signal {number}"


def _search_path() -> str:
    """Import path of the new process: this package first, then the path of this process."""
    package = str(Path(__file__).parent.parent.parent)
    given = os.environ.get("PYTHONPATH", "")
    # The parent folder is needed only if the package is imported from there; else it is installed.
    root = __package__.split(".")[0]
    parents = [package] if (Path(package) / root / "studies").exists() else []
    return os.pathsep.join([*parents, *([given] if given else [])])
