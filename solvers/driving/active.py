"""The systems that are still evaluated: all of a batch, or only those that have not ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.state import map_tensors
from .ledger import Ledger


class Active:
    """The part of the batch that a solver steps.

    Attributes:
        problem: Its systems.
        rows: Their numbers in the batch; `None` while these are all.
    """

    def __init__(self, problem: Problem, ledger: Ledger, keeps_batch: bool) -> None:
        self.problem = self.whole = problem
        self.rows: np.ndarray | None = None
        self._ledger = ledger
        self._restrict = None if keeps_batch else problem.restrict

    def thin_out(self, state: Any) -> Any:
        """Drop the systems that have ended from the evaluation, or at least keep NaN out of it."""
        ledger = self._ledger
        rows = self._numbers()
        running = ledger.running[rows]
        if self._restrict is not None and 2 * running.sum() <= len(rows):
            local = torch.from_numpy(np.flatnonzero(running)).to(ledger.z.device)
            self.rows = rows[running]
            self.problem = self._restrict(self._index())
            return map_tensors(lambda tensor: tensor.index_select(0, local), state)
        finished = torch.from_numpy(~running).to(ledger.z.device).unsqueeze(1)
        self.problem.park(finished, self.iterates())
        return state

    def restore(self) -> Problem:
        """Evaluate all systems again, wherever it is asked."""
        self.problem, self.rows = self.whole, None
        self.whole.unpark()
        return self.whole

    def iterates(self) -> Tensor:
        """The kept iterates of the active systems."""
        return self._ledger.z if self.rows is None else self._ledger.z[self._index()]

    def spread(self, entries: np.ndarray) -> np.ndarray:
        """`entries` of the active systems along the last axis as those of all, NaN for the others."""
        if self.rows is None:
            return entries
        shape = (*entries.shape[:-1], len(self._ledger.status))
        everyone = np.full(shape, np.nan, entries.dtype)
        everyone[..., self.rows] = entries
        return everyone

    def places(self, systems: np.ndarray) -> tuple[Tensor, Tensor]:
        """The numbers of `systems` (boolean) and their rows in the state, as tensors."""
        rows, device = self._numbers(), self._ledger.z.device
        local = np.flatnonzero(systems[rows])
        return torch.from_numpy(rows[local]).to(device), torch.from_numpy(local).to(device)

    def _numbers(self) -> np.ndarray:
        return np.arange(len(self._ledger.status)) if self.rows is None else self.rows

    def _index(self) -> Tensor:
        return torch.from_numpy(self._numbers()).to(self._ledger.z.device)
