"""Newton's method from a point beside a curve to the curve, within a plane across it.

Each iteration solves `M δ = (F(w), row · (w − target))` and subtracts `δ`. It is judged by its corrections
and not by residuals: the ratio of the first two is the contraction that sets the next step along the curve,
and the length of the last one tells the error that is left, which is its square.

Source: Deuflhard 2004, sections 2.1 and 5.1 (contraction of corrections); Keller 1977.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...solvers.driving.trials import of_a_point
from .bordered import Jacobian, Linearize
from .metric import Metric

_MOST_ITERATIONS = 8
# Corrections that shrink by less than this factor do not converge.
_SLOWEST = 0.5
# A correction is the last if it is below this power of the unit of rounding, beside the point: its square
# is rounding.
_LAST_POWER = 0.6


@dataclass(frozen=True)
class Correction:
    """The outcome of a correction.

    Attributes:
        w: The point, on the curve if it converged.
        converged: True if the last correction is small.
        contraction: The ratio of the second correction to the first; 0 where one was enough.
        distance: The length of the first correction.
        reason: Account of a failure.
    """

    w: Tensor
    converged: bool
    contraction: float
    distance: float
    reason: str = ""


@dataclass(frozen=True)
class Corrector:
    """The corrections of one curve.

    Attributes:
        linearize: Gives `F` and its Jacobian.
        metric: Lengths.
    """

    linearize: Linearize
    metric: Metric

    def correct(self, target: Tensor, row: Tensor) -> Correction:
        """The point of the curve with `row · w = row · target`, from `target`."""
        w = target
        lengths: list[float] = []
        eps = torch.finfo(w.dtype).eps
        for _ in range(_MOST_ITERATIONS):
            found = self.linearized(w)
            if isinstance(found, str):
                return self._failed(w, lengths, found)
            value, jacobian = found
            right = torch.cat((value, (row * (w - target)).sum().unsqueeze(0)))
            if not bool(right.any()):
                return Correction(w, True, self._contraction(lengths), sum(lengths[:1]))
            move = jacobian.bordered(row.unsqueeze(0), self.metric.scales).solve(right)
            length = float(self.metric.length(move))
            if not length < float("inf"):
                reason = "the bordered matrix is singular, or the residual is not finite"
                return self._failed(w, lengths, reason)
            w = w - move
            lengths.append(length)
            size = max(1.0, float(self.metric.length(w)))
            if length <= eps**_LAST_POWER * size:
                return Correction(w, True, self._contraction(lengths), lengths[0])
            if len(lengths) > 1 and length > _SLOWEST * lengths[-2]:
                return self._failed(w, lengths, "the corrections do not contract")
        return self._failed(w, lengths, f"no convergence in {_MOST_ITERATIONS} corrections")

    def linearized(self, w: Tensor) -> tuple[Tensor, Jacobian] | str:
        """`F` and its Jacobian at `w`; an account where the function refuses the point."""
        try:
            value, jacobian = self.linearize(w)
        except Exception as error:
            if not of_a_point(error):
                raise
            return f"the function raised {type(error).__name__}: {error}"
        if not bool(torch.isfinite(value).all()):
            return "the residual is not finite"
        return value, jacobian

    @staticmethod
    def _contraction(lengths: list[float]) -> float:
        return lengths[1] / lengths[0] if len(lengths) > 1 and lengths[0] > 0 else 0.0

    def _failed(self, w: Tensor, lengths: list[float], reason: str) -> Correction:
        return Correction(w, False, self._contraction(lengths), sum(lengths[:1]), reason)
