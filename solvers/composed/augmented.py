"""A homotopy's path as an equation in `n + 1` unknowns: the homotopy, and a plane across the path.

The unknown is `w = (y, μ)` with `z = z₀ + s y`, so that both parts are pure numbers: `s` is the distance
that `z` moves per unit of `μ` at the start. The rows are `H(z, μ) / ‖r(z₀)‖` and the plane
`direction · (w − target)`, which holds the next point of the path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..interface.derivative import Derivative
from ..interface.problem import Linearization, Problem

Kind = Literal["newton", "fixed_point"]
KINDS = ("newton", "fixed_point")


@dataclass(frozen=True)
class Path:
    """A homotopy of every system; tensors are `(batch, n)` or `(batch, 1)`."""

    kind: Kind
    start: Tensor
    first: Tensor
    """The residual at the start."""
    size: Tensor
    """Its norm."""
    length: Tensor
    """The length `t` for which `t r(z₀)` is a step of the right size."""
    unit: Tensor
    """The distance `s` in `z` for a distance of one in `y`."""

    def position(self, w: Tensor) -> Tensor:
        """`z`."""
        return self.start + self.unit * w[:, :-1]

    def value(self, w: Tensor, residual: Tensor) -> Tensor:
        """`H(z, μ) / ‖r(z₀)‖` where the residual at `z` is `residual`."""
        mu = w[:, -1:]
        if self.kind == "newton":
            return (residual - mu * self.first) / self.size
        return ((1 - mu) * residual - mu * self._way(w)) / self.size

    def slopes(self, w: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`a`, `b` and `c` of `dH = (a J + b) dz + c dμ`, over `‖r(z₀)‖`."""
        one, mu = torch.ones_like(self.size), w[:, -1:]
        if self.kind == "newton":
            return one / self.size, 0 * one, -self.first / self.size
        constant = -mu / self.length
        return (1 - mu) / self.size, constant / self.size, -(residual + self._way(w)) / self.size

    def _way(self, w: Tensor) -> Tensor:
        """Displacement from the start in units of the residual, `(z − z₀) / t`."""
        return self.unit * w[:, :-1] / self.length

    def rows(self, index: Tensor) -> Path:
        """The homotopy of the systems `index`."""
        names = ("start", "first", "size", "length", "unit")
        return replace(self, **{name: getattr(self, name)[index] for name in names})


def augmented(problem: Problem, path: Path, direction: Tensor, target: Tensor) -> Problem:
    """The equation of the point of `path` in the plane through `target` normal to `direction`."""

    def rows_at(w: Tensor, residual: Tensor) -> Tensor:
        plane = (direction * (w - target)).sum(dim=1, keepdim=True)
        return torch.cat((path.value(w, residual), plane), dim=1)

    def function(w: Tensor) -> Tensor:
        return rows_at(w, problem.residual(path.position(w)))

    def linearize(w: Tensor) -> tuple[Tensor, Derivative]:
        z = path.position(w)
        linearization = problem.linearization(z)
        residual = linearization.residual
        if residual is None:
            residual = problem.residual(z)
        derivative = _Bordered(linearization, path, path.slopes(w, residual), direction)
        return rows_at(w, residual), derivative

    def restrict(index: Tensor) -> Problem:
        assert problem.restrict is not None
        smaller = problem.restrict(index)
        return replace(
            augmented(smaller, path.rows(index), direction[index], target[index]),
            counts=whole.counts,
            restrict=None,
        )

    whole = Problem(
        function=function,
        form="root",
        linearize=linearize,
        restrict=None if problem.restrict is None else restrict,
        precision=problem.precision,
    )
    return whole


@dataclass(frozen=True)
class _Bordered:
    """Jacobian of the augmented equation: the homotopy's with one more column and row."""

    linearization: Linearization
    path: Path
    slopes: tuple[Tensor, Tensor, Tensor]
    direction: Tensor

    def jvp(self, v: Tensor) -> Tensor:
        a, b, c = self.slopes
        dz = self.path.unit * v[:, :-1]
        along = a * self.linearization.jvp(dz) + b * dz + c * v[:, -1:]
        return torch.cat((along, (self.direction * v).sum(dim=1, keepdim=True)), dim=1)

    def vjp(self, u: Tensor) -> Tensor:
        a, b, c = self.slopes
        inner, last = u[:, :-1], u[:, -1:]
        dz = self.path.unit * (self.linearization.vjp(a * inner) + b * inner)
        dmu = (c * inner).sum(dim=1, keepdim=True)
        return torch.cat((dz, dmu), dim=1) + last * self.direction

    def jacobian(self, like: Tensor) -> Tensor:
        a, b, c = self.slopes
        identity = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)
        jacobian = self.linearization.jacobian(self.path.start)
        inner = a.unsqueeze(2) * jacobian + b.unsqueeze(2) * identity
        above = torch.cat((self.path.unit.unsqueeze(2) * inner, c.unsqueeze(2)), dim=2)
        return torch.cat((above, self.direction.unsqueeze(1)), dim=1)
