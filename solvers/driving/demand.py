"""The error that is accepted of a system that claims to have converged, and what a refusal asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interface.problem import Form, Problem
from ..interface.stopping import Stopping
from .estimate import Estimate

# The relative error of an unknown that is accepted at the default tolerance of each dtype; in half
# precision, where the residual is at its rounding level, a tenth.
_DEFAULT_XTOL = {torch.float64: 1e-8, torch.float32: 1e-4}
_COARSEST_XTOL = 0.1
# An error of so many roundings is as small as can be asked for.
_FINEST_UNITS = 64
# An unknown is zero once its error is so small a part of its size at the start; with a looser tolerance,
# as many squares of it.
_ZERO = 1e-16
# An error that a solver estimates from old factors must be so much smaller than the accepted one.
SAFE = 0.1
# The residual of a refused system must fall by this much more than its error is too large.
_FURTHER = 0.1
# Each refusal must bring the estimated error below this fraction of the one before.
_CLOSER = 0.5
# The same where no step solves the linear equation, so that the distance is not known.
_UNKNOWN_DISTANCE = 1e-3


@dataclass(frozen=True)
class Demand:
    """The error that is accepted, and what a refusal asks for.

    Attributes:
        xtol: The relative error of each unknown that is accepted.
        zero: The part of its size at the start at which an unknown is zero.
    """

    xtol: float
    zero: float
    is_fine: bool = True
    """The residuals of claims are above their rounding level: not in half precision."""

    @staticmethod
    def of(dtype: torch.dtype, stopping: Stopping) -> Demand:
        """The demand at the default tolerance of a dtype, or at the one that was asked for."""
        default, rtol = _DEFAULT_XTOL.get(dtype, _COARSEST_XTOL), stopping.rtol
        if stopping.residual_alone:
            return Demand(math.inf, math.inf, is_fine=False)
        finest = _FINEST_UNITS * torch.finfo(dtype).eps
        xtol = default if rtol is None else min(_COARSEST_XTOL, max(rtol, finest))
        return Demand(xtol, _ZERO * max(xtol / default, 1.0) ** 2, dtype in _DEFAULT_XTOL)

    def met(self, estimate: Estimate, form: Form = "root") -> Tensor:
        """The systems that are accepted, among them those of which nothing is known.

        Residuals of roots at their rounding level are met whatever the error is; those of fixed points go on
        falling with it, but in half precision.
        """
        small = (estimate.error <= self.xtol) | (estimate.to_zero <= self.zero)
        small |= torch.isnan(estimate.error)
        at_rounding = form == "root" or not self.is_fine
        return small | estimate.at_rounding if at_rounding else small

    def closer(self, distance: Any, before: Any) -> Any:
        """True if a refused system has come close enough since the refusal before, or had none (NaN)."""
        return np.isnan(before) | (distance < _CLOSER * before)

    def reduction(self, error: np.ndarray) -> np.ndarray:
        """The factor by which the residual of a refused system must fall further."""
        missing = self.xtol / np.maximum(error, self.xtol)
        return _FURTHER * np.where(np.isfinite(error), missing, _UNKNOWN_DISTANCE)


def examinable(problem: Problem) -> bool:
    """True for a nonlinear equation with a derivative."""
    return not problem.linear and problem.linearize is not None


def reason(error: float, form: Form, inherits: bool = False) -> str:
    """An account of a refused claim, for error messages."""
    if inherits and not math.isnan(error):
        return (
            f"the residual is small, but the solution is {error:.1g} of its size away, most of it by errors "
            "of the time steps before it, which grow: a smaller rtol lowers them"
        )
    if form == "fixed_point":
        away = (
            "farther away than asked for" if math.isnan(error) else f"{error:.1g} of its size away"
        )
        return f"the residual is small, but the solution is {away}: the map contracts slowly"
    return f"the residual is small, but no root is near: Newton's step there is {error:.1g} of an unknown"
