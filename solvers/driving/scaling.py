"""Systems whose numbers are so small or large that squares leave the range of the dtype, in other units.

A norm of entries below 1e-154 is zero in float64 and below 1e-19 in float32, and steps of most solvers hold
products of four such numbers. Systems that begin out there are solved in units of powers of two, which
round nothing: `s F(z' / t) = 0` for `z' = t z`, with `t = s` for fixed points and linear equations.

Source: Blue 1978 (norms without under- and overflow, as in LAPACK's nrm2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..interface.check import Check, Watcher
from ..interface.derivative import Derivative
from ..interface.problem import Problem
from ..interface.solution import FlatSolution
from ..interface.stopping import Stopping
from .limits import ResidualLimits

Function = Callable[[Tensor], Tensor]

# Beyond this power of the range of the dtype, products of four numbers leave it.
_POWER = 0.25
# Units stay this factor inside of the range.
_INSIDE = 8
_RANGES = {
    dtype: (torch.finfo(dtype).tiny ** _POWER, torch.finfo(dtype).max ** _POWER)
    for dtype in (torch.float64, torch.float32, torch.bfloat16)
}


@dataclass(frozen=True)
class Units:
    """Powers of two, `(batch, 1)`, by which equations and unknowns are multiplied."""

    equation: Tensor
    unknown: Tensor

    @staticmethod
    def of(problem: Problem, z: Tensor, residual: Tensor) -> Units | None:
        """Units for systems that begin far out; `None` where none does.

        Compiled systems keep theirs, and so do objectives and systems with bounds, whose solvers have units
        of their own.
        """
        if problem.compiled is not None or problem.objective is not None:
            return None
        if problem.box is not None:
            return None
        if z.numel() == 0 or z.dtype not in _RANGES:
            return None
        size, start = _largest(residual), _largest(z)
        together = problem.linear or problem.form == "fixed_point"
        if together:
            size = torch.maximum(size, start)
        if _inside(size if together else torch.stack((size, start))):
            return None
        equation = _unit(size)
        return Units(equation, equation if together else _unit(start))

    def problem(self, problem: Problem, like: Tensor) -> Problem:
        """The same systems in these units, for unknowns such as `like`."""
        equation, unknown = self.equation, self.unknown
        function, linearize, restrict = problem.function, problem.linearize, problem.restrict

        operator = problem.operator
        scaled = (
            self._function(function) if operator is None else self._linear(function, operator, like)
        )

        def linearized(z: Tensor) -> tuple[Tensor, Derivative]:
            assert linearize is not None  # for the type checker
            value, derivative = linearize(z / unknown)
            together = equation is unknown
            return equation * value, derivative if together else _Scaled(derivative, self)

        def restricted(rows: Tensor) -> Problem:
            assert restrict is not None  # for the type checker
            some = equation[rows]
            other = some if equation is unknown else unknown[rows]
            return Units(some, other).problem(restrict(rows), like[rows])

        return replace(
            problem,
            function=scaled,
            linearize=None if linearize is None else linearized,
            restrict=None if restrict is None else restricted,
            # A graph has the units of the caller.
            graph=problem.graph if bool(((equation == 1) & (unknown == 1)).all()) else None,
        )

    def _function(self, function: Function) -> Function:
        return lambda z: self.equation * function(z / self.unknown)

    def _linear(self, function: Function, operator: Function, like: Tensor) -> Function:
        """A linear function, whose products are taken in these units: in the old ones they may underflow."""
        unit = self.equation
        constant = unit * function(like.new_zeros(()).expand_as(like))
        as_before = unit == 1  # Their roundings must not depend on those that are far out.
        if not bool(as_before.any()):
            return lambda z: operator(z) + constant
        return lambda z: torch.where(as_before, function(z), operator(z) + constant)

    def atol(self, atol: np.ndarray, stopping: Stopping) -> np.ndarray:
        """Absolute tolerances in these units; those of limits on single equations are in them already."""
        return atol if stopping.atol is None else np.asarray(atol * _host(self.equation))

    def stopping(self, stopping: Stopping, z: Tensor) -> Stopping:
        """A rule with its limits on single equations in these units."""
        limits = ResidualLimits.of(stopping, z)
        if limits is None:
            return stopping
        return replace(stopping, atol_residual=limits.largest * self.equation)  # type: ignore[arg-type]

    def watcher(self, watcher: Watcher | None) -> Watcher | None:
        """The caller's callback, which sees norms and iterates in the caller's units."""
        if watcher is None:
            return None
        unit = _host(self.equation)

        def watch(check: Check) -> bool:
            own = check.of(lambda z: z / self.unknown)
            return watcher(replace(own, norms=check.norms / unit))

        return Watcher(watch)

    def back(self, solution: FlatSolution) -> FlatSolution:
        """A solution of the scaled systems in the units of the caller."""
        unit = _host(self.equation)
        trace = solution.trace
        return replace(
            solution,
            z=solution.z / self.unknown,
            residual_norm=solution.residual_norm / unit,
            threshold=solution.threshold / unit,
            trace=None if trace is None else trace / unit,
        )


@dataclass(frozen=True)
class _Scaled:
    """A derivative in other units."""

    inner: Derivative
    units: Units

    def jvp(self, v: Tensor) -> Tensor:
        return self.units.equation * self.inner.jvp(v / self.units.unknown)

    def vjp(self, u: Tensor) -> Tensor:
        return self.inner.vjp(self.units.equation * u) / self.units.unknown

    def jacobian(self, like: Tensor) -> Tensor:
        matrix = self.units.equation.unsqueeze(2) * self.inner.jacobian(like)
        return matrix / self.units.unknown.unsqueeze(2)


def _largest(rows: Tensor) -> Tensor:
    """The largest entry of each system, `(batch,)`."""
    return rows.detach().abs().amax(dim=1)


def _inside(size: Tensor) -> bool:
    """True if no product of four numbers of these sizes leaves the range of their dtype."""
    low, high = _RANGES[size.dtype]
    sizes = size.cpu().double().numpy()  # In the range of every dtype.
    # A start at zero, or a system that is solved there.
    return bool(((sizes == 0) | ((sizes > low) & (sizes < high))).all())


def _unit(size: Tensor) -> Tensor:
    """The power of two that brings a size far out to 1, `(batch, 1)`; 1 for sizes that are not."""
    low, high = _RANGES[size.dtype]
    out = ((size > 0) & (size < low)) | ((size > high) & torch.isfinite(size))
    limits = torch.finfo(size.dtype)
    most = int(np.log2(limits.max)) - _INSIDE
    exponent = torch.frexp(size.double()).exponent.clamp(-most, most)
    unit = torch.ldexp(torch.ones_like(size), -exponent)
    return torch.where(out, unit, 1.0).unsqueeze(1)


def _host(unit: Tensor) -> np.ndarray:
    return unit.squeeze(1).double().cpu().numpy()
