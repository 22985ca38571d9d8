"""The function that is to be minimised, where the equation of a problem is that its gradient vanishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .derivative import Derivative
from .loss import Loss
from .solution import Counts


class WeightedModel(NamedTuple):
    """The linear model of weighted residuals: half its squared norm is the Gauss–Newton model.

    Attributes:
        residual: `√w r`, `(batch, m)`.
        jacobian: `√w J`, `(batch, m, n)`.
    """

    residual: Tensor
    jacobian: Tensor


@dataclass(frozen=True)
class Objective:
    """The objective of each system, on flat `(batch, n)` tensors.

    Attributes:
        function: The residuals `r(z)`, `(batch, m)`, of least squares; else the objective itself, `(batch,)`.
        linearize: Gives the residuals and their derivative at a point; `None` where there are none.
        loss: The loss of least squares; `None` for squares.
        counts: Work done so far.

    Examples:
        >>> objective = Objective(lambda z: (z**2).sum(dim=1))
        >>> objective.value(torch.ones(1, 3)).tolist()
        [3.0]
    """

    function: Callable[[Tensor], Tensor]
    linearize: Callable[[Tensor], tuple[Tensor, Derivative]] | None = None
    loss: Loss | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def has_residuals(self) -> bool:
        """True for least squares."""
        return self.linearize is not None

    def value(self, z: Tensor) -> Tensor:
        """The objective of each system, `(batch,)`; one evaluation."""
        self.counts.evaluations += 1
        value = self.function(z).detach()
        return self.of_residuals(value) if self.has_residuals else value

    def of_residuals(self, residual: Tensor) -> Tensor:
        """`½ Σ ρ(r²)` along the last axis."""
        return half_sum(residual, self.loss)

    def weights(self, residual: Tensor) -> Tensor:
        """The weight `ρ'` of each residual."""
        return torch.ones_like(residual) if self.loss is None else self.loss.weight_of(residual)

    def linearization(self, z: Tensor) -> tuple[Tensor, Derivative]:
        """The residuals and their derivative; one evaluation.

        Raises:
            TypeError: The objective is no sum of squares.
        """
        if self.linearize is None:
            raise TypeError(
                "the solver needs residuals, and the objective is a number: call least_squares, or choose a "
                "solver such as NewtonTrustRegion() or LBFGS()"
            )
        self.counts.evaluations += 1
        residual, derivative = self.linearize(z)
        return residual.detach(), derivative

    def model(self, z: Tensor) -> WeightedModel:
        """The Gauss–Newton model at a point; counted as `min(m, n)` products.

        With a loss, residuals are weighted as in iterated least squares (Holland & Welsch 1977), so that the
        model has the gradient of the objective and a Hessian that is never negative.
        """
        residual, derivative = self.linearization(z)
        matrix = derivative.jacobian(z).detach()
        self.counts.jvps += min(residual.shape[1], z.shape[1])
        if self.loss is None:
            return WeightedModel(residual, matrix)
        root = self.weights(residual).sqrt()
        return WeightedModel(root * residual, root.unsqueeze(2) * matrix)


def half_sum(residual: Tensor, loss: Loss | None) -> Tensor:
    """`½ Σ ρ(r²)` along the last axis."""
    terms = residual * residual if loss is None else loss.of(residual)
    return 0.5 * terms.sum(dim=-1)
