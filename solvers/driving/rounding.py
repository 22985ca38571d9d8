"""The part of a residual that rounding explains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..interface.compiled_systems import NoDerivativeError
from ..interface.golden import golden_signs
from ..interface.norms import rms_unit
from ..interface.problem import Problem
from ..interface.scale import first_step
from ..interface.solution import Status
from ..interface.tolerance import Budget, Tolerance
from .active import Active
from .ledger import Ledger
from .progress import CONVERGED, MAX_STEPS, STALLED

# A norm of so many roundings of its reference is at the rounding level of the dtype: progress there is
# noise. In half precision 64 of them would be half of everything.
LEVEL_UNITS, HALF_LEVEL_UNITS = 64, 4
# Changing each unknown by so many roundings explains a residual (Rigal & Gaches 1967).
BACKWARD_ERROR_UNITS = 8
# The same for one time step, whose change is measured with all signs alike and is never too small.
TIME_STEP_UNITS = 4
# An unknown that starts at zero has at most the size of so many first steps.
_FIRST_STEPS = 10.0
_HALF = (torch.float16, torch.bfloat16)


class RoundingCheck:
    """Accepts residuals that rounding explains, at the default tolerance.

    The default tolerance of a root or of a linear equation is relative to the residual at the start, which
    may have been a solution; it asks for no more than a small backward error.

    Attributes:
        tolerance: The tolerances of the solve.
        level: The relative size of a residual at the rounding level.
    """

    def __init__(
        self,
        ledger: Ledger,
        active: Active,
        tolerance: Tolerance,
        budget: Budget,
        residual: Tensor,
    ) -> None:
        problem = active.whole
        self.tolerance = tolerance
        self.level = level(problem, ledger.z)
        self._ledger, self._active, self._budget = ledger, active, budget
        self._start, self._residual = ledger.z, residual
        self._size: Tensor | None = None
        self._possible = tolerance.is_default and (
            problem.linear or (problem.form == "root" and problem.linearize is not None)
        )

    def explained(self, which: np.ndarray) -> np.ndarray:
        """The systems among `which` with a residual that rounding explains; one evaluation at most."""
        ledger = self._ledger
        if not (self._possible and which.any() and not self._budget.exhausted):
            return np.zeros_like(which)
        try:
            active = self._active
            size = self._sizes() if active.rows is None else self._sizes()[active.rows]
            bound = active.spread(reachable(active.problem, active.iterates(), size))
        except NoDerivativeError:  # A solver may do without, and then nothing is known of rounding.
            self._possible = False
            return np.zeros_like(which)
        explained = which & (ledger.norm <= bound)
        ledger.threshold = np.where(explained, bound, ledger.threshold)
        return np.asarray(explained)

    def _sizes(self) -> Tensor:
        """The sizes that the unknowns had at the start; one that was zero has ten first steps."""
        if self._size is None:
            start, problem = self._start, self._active.whole
            self._size = start.abs()
            if not problem.linear and bool((start == 0).any()):
                step = _FIRST_STEPS * first_step(problem, start, self._residual).abs()
                self._size = torch.where(start == 0, step, self._size)
        return self._size

    def within(self) -> np.ndarray:
        """The unsolved systems whose residual is within rounding error."""
        ledger = self._ledger
        if not self._possible or (ledger.status == CONVERGED).all():
            return np.zeros_like(ledger.running)
        unsolved = (ledger.status == STALLED) | (ledger.status == MAX_STEPS)
        unsolved |= ledger.status == Status.DISCONTINUITY
        unsolved &= (ledger.steps > 0) & np.isfinite(ledger.norm)
        if unsolved.any():
            self._active.restore()
        return self.explained(unsolved)


def level(problem: Problem, z: Tensor) -> float:
    """The relative size of a residual at the rounding level of the problem's dtype."""
    return level_of(problem.dtype(z))


def level_of(dtype: torch.dtype) -> float:
    """The same for residuals that are computed in a dtype."""
    return (HALF_LEVEL_UNITS if dtype in _HALF else LEVEL_UNITS) * torch.finfo(dtype).eps


def due(without_progress: np.ndarray, first: int) -> np.ndarray:
    """The systems to be checked after so many steps without progress: at powers of two from `first` on."""
    powers = without_progress & (without_progress - 1) == 0
    return (without_progress >= first) & powers


def reachable(problem: Problem, z: Tensor, size: Tensor | None = None) -> np.ndarray:
    """The residual norms that a small backward error explains: those of changing `z` in its last digits.

    The changes of a few units have the signs of a quasi-random sequence, so that the product is of the
    size of `‖J‖‖z‖` also where cancellation makes `J z` small. One product, one evaluation.

    An unknown of a nonlinear equation that ran off is changed by the last digits of the `size` that it had
    at the start: far out, those of `z` explain everything.

    Source: Rigal & Gaches 1967 (the normwise backward error).
    """
    size = z if size is None or problem.linear else torch.minimum(z.abs(), size)
    moved = size * golden_signs(z)
    product = problem.apply(moved) if problem.linear else problem.linearization(z).jvp(moved)
    change = torch.linalg.vector_norm(product, dim=1)
    change = change.detach().cpu().numpy().astype(np.float64)
    return change * rms_unit(z.shape[1]) * BACKWARD_ERROR_UNITS * problem.eps(z)
