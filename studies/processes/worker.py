"""Process that runs cells; `guard.py` starts it, and ends it whenever a cell fails.

    python -m implicitly.studies.worker DESCRIPTOR THREADS

Tasks arrive on a separate connection, so that the output of a method does no harm. A method may hang in C
with the interpreter locked. If the guard is dead as well, the alarm makes the kernel end the process.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

_GRACE = 30.0


def serve(connection: Connection, threads: int) -> None:
    """Run tasks until the connection is closed."""
    import torch

    from .catalogue import Catalogue
    from .cell import Cell
    from .measuring import Prepared, measure, out_of_memory, prepare, timed
    from .memory import Memory

    torch.set_num_threads(threads)
    catalogues: dict[str | None, Catalogue] = {}
    prepared: dict[Cell, Prepared] = {}
    connection.send(("ready", None))
    while True:
        try:
            what, cell = connection.recv()
        except EOFError:
            return
        _alarm(cell.limits.seconds + _GRACE)
        memory = Memory(cell.limits.memory)
        answer: tuple[str, Any]
        try:
            if cell not in prepared:
                if what != "time":
                    prepared.clear()
                catalogue = catalogues.setdefault(cell.own, Catalogue(cell.own))
                prepared[cell] = prepare(cell, catalogue)
            if what == "time":
                answer = ("done", timed(prepared[cell]))
            else:
                columns = measure(prepared[cell])
                answer = ("done", {**columns, "peak_memory": memory.peak()})
        except (Exception, SystemExit) as error:
            kind = "out of memory" if out_of_memory(error) else "error"
            answer = (kind, f"{type(error).__name__}: {error}")
        finally:
            memory.lift()
            _alarm(0)
        connection.send(answer)


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _silence() -> None:
    """Empty standard input, discard standard output; standard error is the guard's file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    _silence()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
