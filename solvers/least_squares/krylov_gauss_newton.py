"""Gauss and Newton's method by products with the Jacobian: LSMR within a trust region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer, check_optional_integer, check_truth
from ..interface.derivative import Derivative
from ..interface.golden import golden_signs
from ..interface.problem import Problem
from ..interface.solver import Solver
from ..linear.lsmr import LSMR
from ..linear.rows import dot, norm
from ..minimisation.krylov_region import (
    accuracy_of,
    advance_along,
    first_radius,
    started,
    to_boundary,
    truncated,
)
from ..minimisation.region import RegionState, objective_of

# Products with random signs from which the lengths of the columns of the Jacobian are estimated.
_PROBES = 8
# Columns shorter than this part of the longest are measured as if they had it.
_SHORTEST = 1e-3


@dataclass(frozen=True)
class KrylovGaussNewton(Solver):
    """Gauss–Newton steps in a trust region, by LSMR on products with the Jacobian of the residuals.

    The least-squares problem `min ‖r + J s‖` of a step is solved without a matrix, and without the normal
    equations, whose condition number is the square. The iterates of LSMR grow: where one leaves the region,
    the step ends on its boundary, as in the method of Steihaug, which makes it a damped one. Unknowns are in
    units of the lengths of the columns of `J`, which products with random signs estimate.

    A step after one that did not quarter the gradient has the whole Hessian as its model, by conjugate
    gradients, as near minimisers with large residuals (`second_order`).

    Attributes:
        max_iterations: LSMR iterations of a step; `None` for twice the number of unknowns.
        second_order: Use the Hessian where the Gauss–Newton model converges slowly.
        max_trials: Radii that one step tries, after which a system stalls.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: `second_order` is not a truth value; used with `root`, `fixed_point` or `minimise`.

    Source: Fong & Saunders 2011 (LSMR, whose iterates grow); Steihaug 1983 (the boundary); Eisenstat & Walker
    1996 (the accuracy of a step); Bekas, Kokiopoulou & Saad 2007 (lengths by random signs); Dennis, Gay &
    Welsch 1981 (the choice between the two models).

    Examples:
        >>> import torch, implicitly
        >>> y = torch.linspace(-1.0, 1.0, 500, dtype=torch.float64)
        >>> r = lambda z: torch.cat((torch.sinh(z) - y, 5.0 * z.diff(n=2)))
        >>> z0, solver = torch.zeros_like(y), implicitly.KrylovGaussNewton()
        >>> bool(implicitly.least_squares(r, z0, solver=solver).converged)
        True
    """

    max_iterations: int | None = None
    second_order: bool = True
    max_trials: int = 30
    needs: ClassVar[str] = "products with the Jacobian of residuals and its transpose"
    suits: ClassVar[str] = "least squares with many unknowns, mostly without second derivatives"
    ends_itself: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_optional_integer("max_iterations", self.max_iterations, 1)
        check_truth("second_order", self.second_order)
        check_integer("max_trials", self.max_trials, 1)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> RegionState:
        return started(problem, z, residual)

    def step(self, problem: Problem, state: RegionState) -> RegionState:
        model = _Model.of(problem, state.z)
        limit = self.max_iterations or 2 * state.z.shape[1] + 10
        accuracy, units = accuracy_of(state).unsqueeze(1), model.units
        slow = state.slow if self.second_order else torch.zeros_like(state.slow)
        gradient = -state.residual / units
        linearization = problem.linearization(state.z) if bool(slow.any()) else None

        def curved(v: Tensor) -> Tensor:
            assert linearization is not None  # for the type checker
            return -linearization.vjp(v / units).detach() / units

        def path(radius: Tensor) -> tuple[Tensor, Tensor]:
            y, promised = model.truncated(radius, accuracy, limit)
            if linearization is not None:
                other = truncated(curved, gradient, radius, accuracy * norm(gradient), limit)
                y = torch.where(slow.unsqueeze(1), other[0], y)
                promised = torch.where(slow, other[1], promised)
            return y / units, promised

        scaled = replace(state, z=units * state.z, residual=-gradient)
        radius = first_radius(scaled, model.product)
        return advance_along(problem, state, path, radius, self.max_trials, units)


@dataclass(frozen=True)
class _Model:
    """The weighted linear model of the residuals `r + J D⁻¹ y`.

    Attributes:
        problem: The systems, whose products are counted.
        residual: `√w r`, `(batch, m)`.
        root: `√w`.
        derivative: Products with `J`.
        units: `D`, `(batch, n)`.
    """

    problem: Problem
    residual: Tensor
    root: Tensor
    derivative: Derivative
    units: Tensor

    @staticmethod
    def of(problem: Problem, z: Tensor) -> _Model:
        """The model at an iterate."""
        objective = objective_of(problem)
        residual, derivative = objective.linearization(z)
        root = objective.weights(residual).sqrt()
        plain = _Model(problem, root * residual, root, derivative, torch.ones_like(z))
        squares = torch.zeros_like(z)
        for probe in range(_PROBES):
            signs = golden_signs(residual, first=1 + probe * residual.shape[1]).expand_as(residual)
            squares = squares + plain.transposed(signs).square() / _PROBES
        longest = squares.amax(dim=1, keepdim=True).sqrt()
        units = torch.maximum(squares.sqrt(), _SHORTEST * longest)
        return replace(plain, units=torch.where((units > 0) & torch.isfinite(units), units, 1.0))

    def apply(self, y: Tensor) -> Tensor:
        """`√w J D⁻¹ y`."""
        self.problem.counts.jvps += 1
        return self.root * self.derivative.jvp(y / self.units).detach()

    def transposed(self, u: Tensor) -> Tensor:
        """Its transpose."""
        self.problem.counts.vjps += 1
        return self.derivative.vjp(self.root * u).detach() / self.units

    def product(self, y: Tensor) -> Tensor:
        """The product with the Gauss–Newton matrix."""
        return self.transposed(self.apply(y))

    def truncated(self, radius: Tensor, accuracy: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """The step within the radius, and the decrease that the model promises."""
        solver, bound = LSMR(), radius.unsqueeze(1)
        equation = Problem(
            lambda y: -self.apply(y), "root",
            operator=lambda y: -self.apply(y), transpose=lambda u: -self.transposed(u),
        )  # fmt: skip
        state = solver.init(equation, torch.zeros_like(self.units), self.residual)
        enough = accuracy * state.zeta_bar.abs()
        step, left = state.z, state.residual
        ended = state.zeta_bar == 0
        for _ in range(limit):
            state = solver.step(equation, state)
            move, change = state.z - step, state.residual - left
            leaves = norm(state.z) >= bound
            part = torch.where(leaves, to_boundary(step, move, bound), 1.0)
            part = torch.where(ended, 0.0, part)
            step, left = step + part * move, left + part * change
            ended = ended | leaves | (state.zeta_bar.abs() <= enough)
            ended = ended | (state.end_status != 0).unsqueeze(1) | ~torch.isfinite(state.zeta_bar)
            if bool(ended.all()):
                break
        image = left - self.residual
        return step, -(dot(self.residual, image) + 0.5 * dot(image, image)).squeeze(1)
