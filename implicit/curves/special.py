"""Folds and branch points between two points of a curve: found by test functions, then solved for.

At a fold the part of the tangent along the parameter changes its sign; at a simple branch point the
determinant of the bordered matrix does. Where both do within one step, both are located to tell whether it
is one point: on a pitchfork the bifurcating branch turns exactly where it meets the other.

Source: Seydel 2010, sections 5.3 and 5.4 (test functions); Govaerts 2000, section 8.3; Keller 1977 (the
algebraic branching equation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...solvers import Solution, Solver, Status
from ..gradients import Gradient
from .equation import CurveEquation
from .oscillation import critical_pair, growing_pairs
from .singular import solve_branch_point, solve_fold, solve_hopf_point
from .walk import CurvePoint, Walk

Kind = Literal["fold", "branch", "hopf"]

# The part of a step to which test functions locate a point before it is solved for.
_NEAR = 2.0**-5
# Points of two kinds within this part of a step are one.
_SAME = 0.05
# A solution farther away than so many steps is another point.
_AWAY = 1.0
# An imperfection above this part of the terms of the equation breaks a branch point.
_IMPERFECT = 1e-6
# A curve starts at a fold where this part of its tangent, or less, is along the parameter.
_VERTICAL = 1e-6
# Eigenvalues of the branching equation below this part of the larger are zero.
_FLAT = 1e-5


@dataclass(frozen=True)
class SpecialPoint:
    """A fold, a branch point or a Hopf point of a curve.

    Attributes:
        kind: `"fold"`, `"branch"` or `"hopf"`.
        z: The unknown, in its structure; differentiable in the arguments of the curve.
        parameter: The value of the parameter, without axes; differentiable as well. The derivative of a
            branch point is that of the equation with the imperfection that keeps it, which is none where a
            symmetry does.
        null: At a fold the right null vector of `∂F/∂z`; at a branch point the left one; at a Hopf point the
            real part of the eigenvector.
        index: The point of the curve that comes before.
        status: The `Status` of the extended system, as an integer; where it is not `CONVERGED`, `z` and
            `parameter` are where test functions have put the point, and carry no derivative.
        error: Estimate of the relative error.
        directions: Flat tangents `(dz, dλ)` of the other curve through a branch point: one, or none where the
            branching equation is degenerate.
        frequency: At a Hopf point the imaginary part `ω` of the eigenvalues `± i ω`; else `None`.

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z, p: z**2 + p**2 - 1
        >>> z0 = torch.tensor(1.0, dtype=torch.float64)
        >>> curve = implicitly.continuation(F, z0, 0.0, bounds=(-2, 2))
        >>> [(point.kind, round(point.parameter.item(), 6)) for point in curve.special]
        [('fold', 1.0), ('fold', -1.0)]
    """

    kind: Kind
    z: Any
    parameter: Tensor
    null: Any
    index: int
    status: int
    error: float
    directions: tuple[Tensor, ...] = field(default=(), repr=False)
    frequency: Tensor | None = None

    @property
    def located(self) -> bool:
        """True if the extended system has been solved."""
        return self.status == Status.CONVERGED


@dataclass(frozen=True)
class Search:
    """The search for special points of one curve.

    Attributes:
        equation: The equation with its arguments, which the points are differentiable in.
        walk: Steps along the curve.
        solver, gradient: Options of the extended systems.
        recording: True if autograd records their solutions.
        hopf: Look for Hopf points.
    """

    equation: CurveEquation
    walk: Walk
    solver: Solver | None = None
    gradient: Gradient | None = None
    recording: bool = True
    hopf: bool = False

    def between(
        self, a: CurvePoint, b: CurvePoint, index: int, *, skip_fold: bool = False
    ) -> list[SpecialPoint]:
        """The special points between two points of the curve, in their order."""
        found: list[tuple[float, SpecialPoint]] = []
        branches = a.sign * b.sign < 0
        folds = a.slope * b.slope < 0 and not skip_fold
        if branches:
            part, near = self._bisected(a, b, lambda point: point.sign * a.sign > 0)
            found.append((part, self._branch_point(a, b, near, index)))
        if folds:
            part, near = self._bisected(a, b, lambda point: point.slope * a.slope > 0)
            if not (branches and abs(part - found[0][0]) <= _SAME):
                found.append((part, self._fold(a, b, near, index)))
        if self.hopf:
            found += self._hopf_points(a, b, index)
        return [point for _, point in sorted(found, key=lambda pair: pair[0])]

    def at_start(self, start: CurvePoint) -> list[SpecialPoint]:
        """The fold at which a curve starts, if it does."""
        along = abs(start.slope) * float(self.walk.metric.weights[-1]) ** 0.5
        if along > _VERTICAL:
            return []
        beside = replace(start, w=start.w + self.walk.rule.first * start.tangent)
        fold = self._fold(start, beside, start, 0)
        return [fold] if fold.located else []

    def _bisected(
        self, a: CurvePoint, b: CurvePoint, before: Callable[[CurvePoint], bool]
    ) -> tuple[float, CurvePoint]:
        """A part of the chord near a change of a test function, and the point there."""
        low, high, near = 0.0, 1.0, a
        while high - low > _NEAR:
            middle = self.walk.between(a, b, (low + high) / 2)
            if isinstance(middle, str):  # At a branch point the matrix is singular.
                return (low + high) / 2, near
            if before(middle):
                low, near = (low + high) / 2, middle
            else:
                high = (low + high) / 2
        return (low + high) / 2, near

    def _fold(self, a: CurvePoint, b: CurvePoint, near: CurvePoint, index: int) -> SpecialPoint:
        with torch.set_grad_enabled(self.recording):
            solution = solve_fold(
                self.equation, near.w[:-1], near.w[-1], near.tangent[:-1],
                solver=self.solver, gradient=self.gradient, on_failure="accept",
            )  # fmt: skip
        return self._special("fold", solution, a, b, near, near.tangent[:-1], index)

    def _branch_point(
        self, a: CurvePoint, b: CurvePoint, near: CurvePoint, index: int
    ) -> SpecialPoint:
        left = self._left_null(near)
        with torch.set_grad_enabled(self.recording):
            solution = solve_branch_point(
                self.equation, near.w[:-1], near.w[-1], left,
                solver=self.solver, gradient=self.gradient, on_failure="accept",
            )  # fmt: skip
        point = self._special("branch", solution, a, b, near, left, index)
        if not point.located:
            return point
        z = self.equation.flat(point.z).detach()
        flat = torch.cat((z, point.parameter.detach().reshape(1)))
        left = self.equation.flat(point.null).detach()
        directions = self._directions(flat, left, near.tangent)
        return replace(point, directions=directions)

    def _hopf_points(
        self, a: CurvePoint, b: CurvePoint, index: int
    ) -> list[tuple[float, SpecialPoint]]:
        """The Hopf point in a step over which the number of growing pairs of eigenvalues changes."""
        growing = growing_pairs(self.walk, a.w)
        if growing == growing_pairs(self.walk, b.w):
            return []
        part, near = self._bisected(
            a, b, lambda point: growing_pairs(self.walk, point.w) == growing
        )
        critical = critical_pair(self.walk, near.w)
        if critical is None:
            return []
        with torch.set_grad_enabled(self.recording):
            solution = solve_hopf_point(
                self.equation, near.w[:-1], near.w[-1], critical,
                solver=self.solver, gradient=self.gradient, on_failure="accept",
            )  # fmt: skip
        point = self._special("hopf", solution, a, b, near, critical.real, index)
        frequency = solution.value.frequency if point.located else critical.frequency
        return [(part, replace(point, frequency=frequency))]

    def _special(
        self,
        kind: Kind,
        solution: Solution,
        a: CurvePoint,
        b: CurvePoint,
        near: CurvePoint,
        null: Tensor,
        index: int,
    ) -> SpecialPoint:
        """The point of a solution, or that of the test functions where it is none between `a` and `b`."""
        z, parameter, vector = solution.value[:3]
        w = torch.cat((self.equation.flat(z).detach(), parameter.detach().reshape(1)))
        step = float(self.walk.metric.length(b.w - a.w))
        away = float(self.walk.metric.length(w - near.w))
        status, error = int(solution.status), float(solution.error)
        broken = kind == "branch" and self._broken(a.w, vector, solution.value.imperfection)
        if status == Status.CONVERGED and away <= _AWAY * step and not broken:
            return SpecialPoint(kind, z, parameter, vector, index, status, error)
        if status == Status.CONVERGED:
            status = int(Status.STALLED)
        z = self.equation.structured(near.w[:-1])
        vector = self.equation.structured(null)
        return SpecialPoint(kind, z, near.w[-1], vector, index, status, float("nan"))

    def _broken(self, w: Tensor, left: Any, imperfection: Tensor) -> bool:
        """True if the curves only come near each other: the equation holds there but for an imperfection.

        Terms of the equation are measured at `w`, beside the branch point, where all of them may vanish.
        """
        along_z, along_parameter = self.walk.linearize(w)[1].norms
        unknown, parameter = self.walk.metric.units
        size = along_z * unknown + along_parameter * parameter
        residual = float(imperfection.detach()) * self.equation.flat(left).detach()
        return float(torch.linalg.vector_norm(residual)) > _IMPERFECT * size

    def _left_null(self, near: CurvePoint) -> Tensor:
        """An approximate left null vector of the Jacobian near a branch point, `(n,)`."""
        return self._twice_bordered(near.w, near.tangent, spread(near.w[:-1]))[0]

    def _twice_bordered(
        self, w: Tensor, tangent: Tensor, column: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The left null vector, and two vectors that span the null space of the Jacobian.

        With two rows below and a column beside, the matrix is regular at a simple branch point.
        """
        _, jacobian = self.walk.linearize(w)
        metric = self.walk.metric
        rows = torch.stack((metric.row(tangent), spread(w) / metric.scales))
        factors = jacobian.bordered(rows, metric.scales, column.unsqueeze(1))
        units = torch.eye(len(w) + 1, dtype=w.dtype, device=w.device)
        left = factors.transposed(units[-1])[:-2]
        along, across = (factors.solve(units[i])[:-1] for i in (-2, -1))
        return left, along, across

    def _directions(self, w: Tensor, left: Tensor, tangent: Tensor) -> tuple[Tensor, ...]:
        """Tangents of the other curve through a branch point, by the algebraic branching equation.

        For `φ = α φ₁ + β φ₂` in the null space the tangents have `u · F''[φ, φ] = 0`: the null directions
        of an indefinite form in two variables.
        """
        _, *pair = self._twice_bordered(w, tangent, left)
        basis = torch.stack([self.walk.metric.unit(vector) for vector in pair])

        def height(part: Tensor) -> Tensor:
            return (left * self.equation.constant().at(w + part @ basis)).sum()

        with torch.enable_grad():
            form = torch.func.hessian(height)(w.new_zeros(2))
        values, vectors = torch.linalg.eigh(form.detach())
        low, high = values.tolist()
        if not (low < 0 < high) or min(-low, high) <= _FLAT * max(-low, high):
            return ()
        first, second = vectors[:, 0] * high**0.5, vectors[:, 1] * (-low) ** 0.5
        both = [self.walk.metric.unit(part @ basis) for part in (first + second, first - second)]
        both.sort(key=lambda found: abs(self.walk.metric.inner(found, tangent)))
        return (both[0],)


def spread(like: Tensor) -> Tensor:
    """A vector like `like` without small or equal entries, the same each time."""
    place = torch.arange(1, len(like) + 1, dtype=torch.float64, device=like.device)
    entries = 0.5 + torch.frac(place * 0.6180339887498949)
    return (entries / len(like) ** 0.5).to(like.dtype)
