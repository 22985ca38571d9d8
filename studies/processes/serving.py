"""Tasks of a cell, in the process of the cell."""

from __future__ import annotations

import base64
import os
import pickle
import signal
from typing import Any

import torch

from ..catalogue import Catalogue
from ..cell import Cell
from ..columns import said
from ..measuring import Prepared, judged, out_of_memory, prepare, solve, timed
from ..memory import Memory
from .channel import LOST, Channel, ClosedError, Message
from .surroundings import Surroundings
from .values import from_bytes, to_bytes

_GRACE = 30.0
_SECONDS_TO_SEND = 60.0


def serve(channel: Channel, threads: int, catalogue: Catalogue) -> None:
    """Run tasks until the other side closes the channel.

    A cell may fork, and both processes come back; only the one that was asked answers. It may close all
    descriptors and open files, one of which then has the number of the channel; that file is not written to.
    """
    # Functions that a cell may replace are looked up before.
    leave, number_of_process = os._exit, os.getpid
    me = number_of_process()
    torch.set_num_threads(threads)
    tasks = _Tasks(catalogue)
    try:
        while True:
            message = channel.receive(None)
            assert message is not None  # for the type checker: it was waited for
            channel.send(Message(message.number, {"began": True}), _SECONDS_TO_SEND)
            answer = tasks.run(message)
            if number_of_process() != me or not channel.intact:
                leave(LOST)
            channel.send(answer, _SECONDS_TO_SEND)
    except ClosedError:
        return


class _Tasks:
    """Tasks on cells, each of which is prepared once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._prepared: dict[Cell, Prepared] = {}
        self._solved: set[Cell] = set()
        self._before: Surroundings | None = None

    def run(self, message: Message) -> Message:
        """Carry out a task, and return the answer."""
        cell: Cell = pickle.loads(base64.b64decode(message.content["cell"]))
        if self._before is None:
            self._before = Surroundings.now()
        _alarm(cell.limits.seconds + _GRACE)
        memory = Memory(cell.limits.memory)
        attached = b""
        try:
            result, attached = self._result(message, cell, memory)
            how = "done"
        except BaseException as error:  # Whatever it is, it belongs to the cell.
            how, result = "out of memory" if out_of_memory(error) else "error", said(error)
        finally:
            memory.lift()
            _alarm(0)
        fit = self._is_fit()
        return Message(message.number, {"how": how, "result": result, "fit": fit}, attached)

    def _is_fit(self) -> bool:
        """True if the process is as it was before its first task."""
        try:
            return self._before is not None and self._before.kept_in(Surroundings.now())
        except Exception:  # Under a mode or a default device that a cell has left on.
            return False

    def _result(self, message: Message, cell: Cell, memory: Memory) -> tuple[Any, bytes]:
        what = message.content["what"]
        if cell not in self._prepared:
            if what != "time":
                self._prepared.clear()
                self._solved.clear()
            self._prepared[cell] = prepare(cell, self._catalogue)
        prepared = self._prepared[cell]
        if what == "time":
            if cell not in self._solved:
                timed(prepared)  # The first solve of a process is slower, and does not count.
                self._solved.add(cell)
            return timed(prepared), b""
        if what == "solve":
            self._solved.add(cell)
            report, value = solve(prepared)
            report["columns"]["peak_memory"] = memory.peak()
            report["value"], attached = (None, b"") if value is None else to_bytes(value)
            return report, attached
        report = message.content["report"]
        value = from_bytes(report["value"], message.attached)
        return judged(prepared, report, value), b""


def _alarm(seconds: float) -> None:
    """Let the kernel end the process if the one that watches it has died."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
