"""A solve seen from outside: the caller's callback, lines of progress, and the iterates of all checks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from ...solvers import Check, Status
from ...solvers.interface.check import Callback, Watcher
from ..calls.settings import Settings
from ..equations.differentiation import constants
from ..equations.layout import Layout, Leaves

# Seconds between two lines.
_BETWEEN = 0.5


class Watching:
    """The work at each check of a solve.

    Attributes:
        history: The iterates of all checks so far, if they are asked for.
    """

    def __init__(
        self, described: str, callback: Callback | None, progress: bool, history: bool
    ) -> None:
        self._described, self._progress = described, progress
        self._watcher = Watcher.of(callback)
        self.history: list[Any] | None = [] if history else None
        self._next = -np.inf

    @property
    def watcher(self) -> Watcher | None:
        """The callback of the solve; `None` if nothing is to be done."""
        if self._progress or self.history is not None:
            return Watcher(self._watch)
        return self._watcher

    def _watch(self, check: Check) -> bool:
        if self.history is not None:
            # A copy: the callback may write to what it gets.
            self.history.append(tree_map(torch.Tensor.clone, check.value))
        if self._progress:
            self._write(check)
        return self._watcher is not None and self._watcher(check)

    def _write(self, check: Check) -> None:
        now, running = time.monotonic(), check.status == Status.RUNNING
        if now < self._next and running.any():
            return
        self._next = now + _BETWEEN
        largest = np.nanmax(check.norms[running], initial=0.0) if running.any() else 0.0
        solved, batch = int((check.status == Status.CONVERGED).sum()), len(check.status)
        print(
            f"{self._described}: step {check.step}, largest residual {largest:.2e}, "
            f"{solved} of {batch} systems solved",
            file=sys.stderr,
            flush=True,
        )


def watching_of(settings: Settings, described: str) -> Watching:
    """The watching that a call asks for."""
    return Watching(described, settings.callback, settings.progress, settings.history)


def flat_watcher(watcher: Watcher, build: Callable[[Leaves], Any], layout: Layout) -> Watcher:
    """The watcher for flat iterates, which `build` puts in the structure of the unknown."""
    return Watcher(lambda check: watcher(check.of(lambda z: build(constants(layout.unflatten(z))))))
