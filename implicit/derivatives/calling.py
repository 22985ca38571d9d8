"""The derivatives that were given, in one call: bound to its arguments, and checked at their first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...solvers import Problem, Solver, SparseLU
from ...solvers.interface.compiled_systems import NoDerivativeError
from ...solvers.interface.derivative import Derivative
from ...solvers.interface.golden import golden_signs
from ...solvers.interface.solver import Transpose
from ..equations.layout import Layout, Leaves
from .given import GivenDerivatives, WrongDerivativeError
from .products import Coloured, derivative_of

# Products may differ by this power of the unit of rounding, relative to their size; differences of values
# are only so close, and so their limit is larger.
_CLOSE, _NEAR = 0.5, 0.25
# Rounding of the products by which a pattern is checked, in units of eps.
_NOISE_UNITS = 1024.0

Linearize = Callable[[Tensor], tuple[Tensor, Derivative]]


class CallDerivatives:
    """The meaning of `GivenDerivatives` in one call.

    Args:
        given: The options.
        described: The function's name in messages.
        jacobian: Gives the caller's Jacobian as a function of the unknown's leaves, from the arguments.
        build: Puts leaves in the structure of the unknown.
        leaves_of: Takes the leaves of a value in this structure, and checks them against others.
    """

    def __init__(
        self,
        given: GivenDerivatives,
        described: str,
        jacobian: Callable[[Leaves], Callable[[Leaves], Any]] | None,
        build: Callable[[Leaves], Any],
        leaves_of: Callable[[Any, Leaves], Leaves],
    ) -> None:
        self._given, self._described, self._jacobian = given, described, jacobian
        self._build, self._leaves_of = build, leaves_of
        self._checked: set[str] = set()

    def solver(self, solver: Solver, layout: Layout, z: Tensor) -> Solver:
        """The solver of the call with the preconditioner and the pattern.

        Raises:
            WrongDerivativeError: The preconditioner is not linear.
        """
        precondition = self._on_flat(layout)
        if precondition is not None:
            self._check_linear(precondition, z)
        return self._given.adapted(solver, precondition)

    def for_derivative(
        self, solver: Solver, layout: Layout, transpose: Transpose | None
    ) -> Solver | None:
        """The solver of a derivative, by what was given and what the solver of the call knows."""
        found = self._given.adapted(solver, self._on_flat(layout)).for_derivative(transpose)
        if found is not None or self._given.sparsity is None:
            return found
        return self._given.adapted(SparseLU(), None).for_derivative(transpose)

    def _on_flat(self, layout: Layout) -> Callable[[Tensor], Tensor] | None:
        """The preconditioner for flat tensors."""
        given = self._given.preconditioner
        if given is None:
            return None

        def precondition(v: Tensor) -> Tensor:
            leaves = layout.unflatten(v)
            return layout.flatten(self._leaves_of(given(self._build(leaves)), leaves))

        return precondition

    def applied(self, problem: Problem, layout: Layout, args: Leaves) -> Problem:
        """The problem with these derivatives."""
        assert problem.linearize is not None  # for the type checker: equations have one
        pattern = self._given.pattern
        if pattern is not None and sum(layout.sizes) != pattern.n:
            raise ValueError(
                f"sparsity has {pattern.n} rows and columns, but a system of {self._described} has "
                f"{sum(layout.sizes)} unknowns"
            )
        linearize = self._linearized(problem, problem.linearize, layout, args)
        if not problem.linear:
            return replace(problem, linearize=linearize, graph=None)
        made: list[Derivative] = []

        def derivative(like: Tensor) -> Derivative:
            if not made:
                made.append(linearize(torch.zeros_like(like))[1])
            return made[0]

        return replace(
            problem,
            linearize=linearize,
            operator=lambda v: derivative(v).jvp(v),
            transpose=lambda u: derivative(u).vjp(u),
            operator_matrix=lambda like: derivative(like).jacobian(like),
            graph=None,
        )

    def _linearized(
        self, problem: Problem, linearize: Linearize, layout: Layout, args: Leaves
    ) -> Linearize:
        jacobian = None if self._jacobian is None else self._jacobian(args)
        pattern = self._given.pattern

        def linearized(z: Tensor) -> tuple[Tensor, Derivative]:
            if jacobian is None:
                value, derivative = linearize(z)
            else:
                value = problem.function(z)
                # Copies, since the caller's function may write to them.
                found = jacobian(tuple(leaf.clone() for leaf in layout.unflatten(z)))
                derivative = derivative_of(
                    self._described, found, z, layout, self._build, self._leaves_of
                )
                if self._first("jacobian"):
                    self._check_jacobian(problem, linearize, z, derivative)
            if pattern is None:
                return value, derivative
            coloured = Coloured(derivative, pattern)
            if self._first("sparsity"):
                self._check_pattern(problem, coloured, z)
            return value, coloured

        return linearized

    def _first(self, name: str) -> bool:
        """True the first time that it is asked of a name."""
        before = name in self._checked
        self._checked.add(name)
        return not before

    def _check_jacobian(
        self, problem: Problem, linearize: Linearize, z: Tensor, derivative: Derivative
    ) -> None:
        """Compare a product with autograd's, or with a difference of values where that has none."""
        z, eps = z.detach(), problem.eps(z)
        u = golden_signs(z).expand_as(z)
        with torch.no_grad():
            try:
                own = linearize(z)[1].vjp(u)
            except NoDerivativeError:
                step = eps ** (1 / 3) * z.abs().clamp(min=1.0)
                above, below = z + step * u, z - step * u
                ratio = (problem.function(above) - problem.function(below)) / 2
                self._compare("J v", derivative.jvp(step * u), ratio, eps**_NEAR)
                return
            self._compare("Jᵀ u", derivative.vjp(u), own, eps**_CLOSE)
            # uᵀ(J v) = (Jᵀu)ᵀ v shows whether the two products belong to one matrix; with v = u the transpose
            # would pass.
            v = golden_signs(z, z.shape[1] + 1) * (1.0 + u.cumsum(1).abs())
            mine, other = u * derivative.jvp(v), own * v
            size = (mine.abs() + other.abs()).sum(1, keepdim=True)
            sums = mine.sum(1, keepdim=True), other.sum(1, keepdim=True)
            self._compare("uᵀ J v", *sums, eps**_CLOSE, size)

    def _compare(
        self, what: str, found: Tensor, own: Tensor, tolerance: float, size: Tensor | None = None
    ) -> None:
        """Raise a `WrongDerivativeError` where two products differ; what is not finite tells nothing."""
        if size is None:
            size = found.abs().amax(1, keepdim=True) + own.abs().amax(1, keepdim=True)
        wrong = ((found - own).abs() > tolerance * size) & torch.isfinite(own)
        if not bool(wrong.any()):
            return
        system, entry = (int(i) for i in wrong.nonzero()[0])
        raise WrongDerivativeError(
            f"jacobian of {self._described} is not its Jacobian: entry {entry} of the product {what} is "
            f"{found[system, entry].item():.6g} by the one given, and {own[system, entry].item():.6g} by "
            f"the function itself (system {system}). Correct it, or leave jacobian out"
        )

    def _check_pattern(self, problem: Problem, coloured: Coloured, z: Tensor) -> None:
        if not coloured.explained(z.detach(), _NOISE_UNITS * problem.eps(z)):
            raise WrongDerivativeError(
                f"sparsity of {self._described} lacks places: products with its Jacobian are not those of a "
                "matrix with this pattern. Add the missing entries (an equation has a row, an unknown a "
                "column), or leave sparsity out: SparseLU finds the pattern itself"
            )

    def _check_linear(self, precondition: Callable[[Tensor], Tensor], z: Tensor) -> None:
        if not self._first("preconditioner"):
            return
        with torch.no_grad():
            v = golden_signs(z).expand_as(z)
            w = 1.0 + v.cumsum(1).abs()
            both, sum_ = precondition(v + w), precondition(v) + precondition(w)
            size = both.abs().amax(1, keepdim=True) + sum_.abs().amax(1, keepdim=True)
            eps = torch.finfo(z.dtype).eps
        if not bool(((both - sum_).abs() <= eps**_CLOSE * size).all()):
            raise WrongDerivativeError(
                f"preconditioner of {self._described} is not a linear map of finite values: M(v + w) is not "
                "M(v) + M(w). Give a fixed linear map, and of an inner iteration a fixed number of steps"
            )
