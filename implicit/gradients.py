"""How derivatives of a solution are formed: exactly by default, or by an approximation that says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..solvers import GMRES, DenseLU, Solver, Stopping
from ..solvers.options import Options
from ..solvers.state import map_tensors
from .differentiation import constants, transforming
from .equation import AdjointEquation, Equation, TangentEquation
from .flat import flat_problem
from .structure import Layout, Leaves

if TYPE_CHECKING:
    from .rule import Call, Outcome

_MANY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Gradient(Options, ABC):
    """A gradient mode.

    Class attributes:
        exact: Derivatives equal those of the solution, up to a tolerance.
    """

    exact: ClassVar[bool] = False


class ImplicitGradient(Gradient):
    """A mode that needs nothing of the solve but its result: saved memory is that of one iterate."""

    @abstractmethod
    def solve_linear(self, call: Call, equation: Equation, args: Leaves) -> Leaves:
        """A (perhaps approximate) solution of the adjoint or tangent `equation`, differentiable."""


class TapedGradient(Gradient):
    """A mode that differentiates through iterations which follow or make up the solve."""

    @abstractmethod
    def record(self, call: Call, z0: Leaves, outcome: Outcome, args: Leaves) -> Leaves:
        """The value with the graph that is to be differentiated.

        Args:
            call: The call whose result this is.
            z0: The start.
            outcome: The result, detached.
            args: The arguments.
        """


@dataclass(frozen=True)
class Exact(ImplicitGradient):
    """The implicit function theorem: one linear equation for each derivative, solved to tolerance.

    Correct to every order and in both modes, whatever solver found the solution and whether or not
    the iteration contracts. The residual that the linear solve achieved is in `Solution.adjoints`.

    Attributes:
        solver: Solver of the adjoint and tangent equations, linear or not; `None` for `GMRES()`, or
            `DenseLU()` for a `NumbaEquation`, whose systems are small.
        stopping: Its stopping rule; `None` for the defaults of the dtype.

    Source: Bai, Kolter & Koltun 2019, theorem 1.

    Example:
        >>> import torch, implicitly
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> gradient = implicitly.Exact(solver=implicitly.NeumannSeries())
        >>> z = implicitly.fixed_point(lambda z, x: 0.5 * z + x, torch.tensor(0.0), x, gradient=gradient)
        >>> z.value.backward()
        >>> round(x.grad.item(), 4)
        2.0
    """

    solver: Solver | None = None
    stopping: Stopping | None = None
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(
                "Exact(solver=...) must be an instance of a solver such as GMRES() or Anderson(), "
                f"got {self.solver!r}"
            )
        if self.stopping is not None and not isinstance(self.stopping, Stopping):
            raise TypeError(f"Exact(stopping=...) must be a Stopping, got {self.stopping!r}")

    def solve_linear(self, call: Call, equation: Equation, args: Leaves) -> Leaves:
        start = tuple(torch.zeros_like(constant) for constant in equation.constant(args))
        solver = self.solver or (DenseLU() if equation.small(start) else GMRES())
        return call.derived(equation, solver, self.stopping).root(start, args)


@dataclass(frozen=True)
class Neumann(ImplicitGradient):
    """Approximate: the Neumann series of `(I − Jᵀ)⁻¹`, cut off after `terms` powers of `J`.

    The error is about `‖J‖^(terms + 1)` of the gradient; where the spectral radius of `J` is not below
    one, more terms make it worse.

    Attributes:
        terms: Number of powers of `J` beyond the identity.

    Raises:
        ValueError: `terms` is not an integer ≥ 0.

    Source: Lorraine, Vicol & Duvenaud 2020; Geng et al. 2021, eq. 8.

    Example:
        >>> Neumann(terms=5)
        Neumann(terms=5)
    """

    terms: int

    def __post_init__(self) -> None:
        if not (isinstance(self.terms, int) and self.terms >= 0):
            raise ValueError(f"terms must be an integer ≥ 0, got {self.terms!r}")

    def solve_linear(self, call: Call, equation: Equation, args: Leaves) -> Leaves:
        return _truncated(equation, args, self.terms)


@dataclass(frozen=True)
class JacobianFree(ImplicitGradient):
    """Approximate: `(I − Jᵀ)⁻¹` replaced by the identity, as if the last iteration were the only one.

    Source: Fung et al. 2022.

    Example:
        >>> JacobianFree()
        JacobianFree()
    """

    def solve_linear(self, call: Call, equation: Equation, args: Leaves) -> Leaves:
        return _truncated(equation, args, 0)


def _truncated(equation: Equation, args: Leaves, terms: int) -> Leaves:
    """`terms + 1` plain iterations of the linear equation from zero."""
    sign = 1.0 if equation.form == "fixed_point" else -1.0
    constant = equation.constant(args)
    total = tuple(sign * leaf for leaf in constant)
    if terms == 0:
        return total
    function = equation.bind(args).function
    for _ in range(terms):
        if equation.form == "fixed_point":
            total = function(total)
        else:
            total = tuple(u - r for u, r in zip(total, function(total), strict=True))
    return total


@dataclass(frozen=True)
class Unrolled(TapedGradient):
    """Backpropagation through the solver's own iterations: the weight-tied unrolled network.

    The solve is run again with as many steps as it took, and its steps are recorded. Memory grows
    with their number.

    Attributes:
        steps: How many of the last iterations of each system to record; `None` for all of them,
            which gives the gradient of what was computed, in `z0` as well. With a number the
            gradient is an approximation. At least one iteration is recorded.

    Raises:
        ValueError: `steps` is not `None` or an integer ≥ 1.

    Source: Bai, Kolter & Koltun 2019, section 3 (weight-tied networks of finite depth).

    Example:
        >>> Unrolled(steps=3)
        Unrolled(steps=3)
    """

    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"steps must be an integer ≥ 1 or None, got {self.steps!r}")

    def record(self, call: Call, z0: Leaves, outcome: Outcome, args: Leaves) -> Leaves:
        layout = Layout.of(z0, call.equation.batch_dims)
        last = outcome.value_steps.reshape(-1).clamp(min=1)
        most, fewest = _range(call.report.value_steps)
        # The residual of iterate j is computed by step j − 1, that of the start beforehand: to
        # record the residuals from `last − steps` on, a system's graph begins one step earlier.
        graph_start = torch.full_like(last, -1) if self.steps is None else last - self.steps - 1
        first_recorded = -1 if self.steps is None else fewest - self.steps - 1

        live = flat_problem(call.equation, layout, args)
        problem, flat = live, layout.flatten(z0)
        recording = torch.is_grad_enabled()
        if first_recorded >= 0:
            problem = flat_problem(call.equation, layout, constants(args))
            flat = constants((flat,))[0]
        with torch.set_grad_enabled(recording and first_recorded < 0):
            residual = problem.residual(flat)
            if transforming():
                # Mapped like the iterates, since solvers write them into storage made from it.
                flat = torch.where(torch.ones_like(residual, dtype=torch.bool), flat, residual)
            state = call.solver.init(problem, flat, residual)
        for step in range(most):
            if step == first_recorded:
                problem = live
            if step >= fewest:
                problem.park((last <= step).unsqueeze(1), constants((flat,))[0])
            with torch.set_grad_enabled(recording and step >= first_recorded):
                if self.steps is not None and step > first_recorded:
                    state = _constant_where(graph_start == step, state)
                state = call.solver.step(problem, state)
                # A system keeps the iterate that its own solve returned.
                flat = torch.where((last > step).unsqueeze(1), state.z, flat)
        return layout.unflatten(flat)


def _range(steps: np.ndarray) -> tuple[int, int]:
    """The most and the fewest steps of any system, at least one."""
    return max(int(steps.max(initial=1)), 1), max(int(steps.min(initial=_MANY)), 1)


def _constant_where(systems: Tensor, state: Any) -> Any:
    """The solver state without the derivatives of some systems."""

    def cut(tensor: Tensor) -> Tensor:
        column = systems.reshape(-1, *[1] * (tensor.ndim - 1))
        return torch.where(column, constants((tensor,))[0], tensor)

    return map_tensors(cut, state)


@dataclass(frozen=True)
class Phantom(TapedGradient):
    """Approximate: backpropagation through damped iterations that follow the detached solution.

    Equals the Neumann series of the damped map, cut off after `steps` terms.

    Attributes:
        steps: Number of iterations.
        damping: Step length of each, in `(0, 1]`.

    Raises:
        ValueError: An option is out of range.

    Source: Geng et al. 2021, "unrolling-based phantom gradient", eq. 10.

    Example:
        >>> Phantom(steps=5, damping=0.5)
        Phantom(steps=5, damping=0.5)
    """

    steps: int = 5
    damping: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"steps must be an integer ≥ 1, got {self.steps!r}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must be in (0, 1], got {self.damping!r}")

    def record(self, call: Call, z0: Leaves, outcome: Outcome, args: Leaves) -> Leaves:
        z, function = outcome.value, call.equation.bind(args).function
        for _ in range(self.steps):
            value = function(z)
            if call.equation.form == "fixed_point":
                z = tuple(torch.lerp(a, b, self.damping) for a, b in zip(z, value, strict=True))
            else:
                z = tuple(a - self.damping * r for a, r in zip(z, value, strict=True))
        # The value stays the solution; only derivatives are taken from the iterations.
        return tuple(
            leaf + (recorded - constant)
            for leaf, recorded, constant in zip(outcome.value, z, constants(z), strict=True)
        )


def adjoint(call: Call, z: Leaves, cotangents: Leaves, args: Leaves) -> Leaves:
    """`u` of the adjoint equation at the solution `z`, by the gradient mode of the call."""
    equation = AdjointEquation(call.equation, len(z))
    return _mode(call).solve_linear(call, equation, (*z, *cotangents, *args))


def tangent(call: Call, z: Leaves, tangents: Leaves, args: Leaves) -> Leaves:
    """`ż` of the tangent equation at the solution `z`, by the gradient mode of the call."""
    equation = TangentEquation(call.equation, len(z))
    return _mode(call).solve_linear(call, equation, (*z, *tangents, *args))


def _mode(call: Call) -> ImplicitGradient:
    if isinstance(call.gradient, TapedGradient):
        raise TypeError(
            f"{type(call.gradient).__name__} differentiates iterations, not the solution"
        )
    return call.gradient
