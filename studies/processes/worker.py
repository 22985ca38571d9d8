"""Process in which cells run; `guard.py` starts it.

    python -m implicitly.studies.processes.worker DESCRIPTOR THREADS [OWN]

It imports what cells need, and the user's file OWN, once. For each request it forks a process of a cell,
which answers on a channel of its own; the cell's state ends with that process. This process runs no cell, and
so stays as it is. It ends a cell's process together with all processes that the cell has started, because the
kernel makes it their parent (`PR_SET_CHILD_SUBREAPER`, prctl(2)).

A process with several threads cannot be forked safely. Then, and on systems other than Linux, the process
itself runs the cell, and is replaced after it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from .channel import DIGEST, LOST, Channel, ClosedError, hear, tell
from .serving import serve

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
_SECONDS_TO_CLEAR = 4.0
_LOOK_EVERY = 0.02
# Modules that most cells import; after the fork each cell would do so again.
_PRELOADED = ("scipy.optimize", "torch.func", "torch.fx.experimental.symbolic_shapes")


class _Nursery:
    """Loop of requests: run a cell, or end it.

    Args:
        control: Connection to the guard.
        threads: Threads of each cell.
        own: The user's file; empty for none.
    """

    def __init__(self, control: socket.socket, threads: int, own: str) -> None:
        from ..catalogue import Catalogue

        self._control, self._threads = control, threads
        self._catalogue = Catalogue(own or None)
        self._cell: int | None = None
        self._number, self._ended = 0, False
        self._forks = _can_fork()

    def run(self) -> None:
        """Serve until the guard closes the connection or has died."""
        digest = (self._catalogue.digest or "")[:DIGEST]
        tell(self._control, {"ready": True, "forks": self._forks, "own": digest})
        while True:
            self._wait()
            try:
                heard = hear(self._control, 0.0)
            except ClosedError:
                self._clear()
                return
            if heard is None:
                continue
            request, descriptors = heard
            if request["do"] == "end":
                self._clear()
                tell(self._control, {"number": request["number"], "cleared": True})
            else:
                self._begin(request["number"], *descriptors)

    def _wait(self) -> None:
        """Wait for a request or for the end of the cell, and report this."""
        if self._cell is None or self._ended:
            select.select([self._control], [], [])
            return
        while not select.select([self._control], [], [], _LOOK_EVERY)[0]:
            # Left as a zombie, so that its number stays its own until it is cleared.
            found = os.waitid(os.P_PID, self._cell, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                killed = found.si_code != os.CLD_EXITED
                status = -found.si_status if killed else found.si_status
                self._ended = True
                tell(self._control, {"number": self._number, "status": status})
                return

    def _begin(self, number: int, channel: int, words: int) -> None:
        if not self._forks:
            tell(self._control, {"number": number, "pid": os.getpid()})
            os.dup2(words, 2)
            serve(Channel(socket.socket(fileno=channel)), self._threads, self._catalogue)
            os._exit(0)
        parent = os.getpid()
        try:
            cell = os.fork()
        except OSError as error:
            tell(self._control, {"number": number, "failed": str(error)[:40]})
            cell = -1
        if cell == 0:
            self._become_cell(parent, channel, words)
        for descriptor in (channel, words):
            os.close(descriptor)
        if cell > 0:
            self._cell, self._number, self._ended = cell, number, False
            tell(self._control, {"number": number, "pid": cell})

    def _become_cell(self, parent: int, channel: int, words: int) -> None:
        """Run a cell in the forked process, which never returns to the loop of its parent."""
        leave = os._exit
        try:
            os.setsid()
            _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != parent:  # It died before the line above.
                leave(LOST)
            self._control.close()
            os.dup2(words, 2)
            os.close(words)
            serve(Channel(socket.socket(fileno=channel)), self._threads, self._catalogue)
            leave(0)
        except BaseException as error:  # Nothing of it may reach the loop of the parent.
            with contextlib.suppress(Exception):
                os.write(2, f"{type(error).__name__}: {error}".encode(errors="replace"))
        finally:
            leave(LOST)

    def _clear(self) -> None:
        """End the process of the cell, and every process that it has started."""
        if self._cell is not None:
            for end in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    end(self._cell, signal.SIGKILL)
            os.waitpid(self._cell, 0)
            self._cell = None
        deadline = time.monotonic() + _SECONDS_TO_CLEAR
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    _kill_descendants()
                    time.sleep(0.005)
            except ChildProcessError:
                return


def _kill_descendants() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


def _can_fork() -> bool:
    """True if the process can be forked safely: on Linux, without threads or a device in use."""
    import torch

    if sys.platform != "linux" or torch.cuda.is_initialized():
        return False
    return len(os.listdir("/proc/self/task")) == 1


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _silence() -> None:
    """Empty standard input, discard standard output; standard error is the guard's file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _preload() -> None:
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main(arguments: list[str]) -> None:
    """Serve the guard whose connection has this descriptor."""
    _silence()
    control = socket.socket(fileno=int(arguments[0]))
    own = arguments[2] if len(arguments) > 2 else ""
    _prctl(_SET_CHILD_SUBREAPER, 1)
    _preload()
    nursery = _Nursery(control, int(arguments[1]), str(Path(own)) if own else "")
    gc.collect()
    gc.freeze()  # So that the collector does not touch, and copy, what forked processes share.
    with contextlib.suppress(ClosedError):
        nursery.run()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
