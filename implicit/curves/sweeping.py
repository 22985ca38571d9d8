"""`sweep`: solutions of one branch at given values of a parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_integer, one_of
from ...solvers import Solution, Solver
from ..gradients import Gradient
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import POLICIES, FailurePolicy
from .continuing import corrected_start, linearization, refuse, units
from .corrector import Corrector
from .curve import Following, solution_at
from .equation import CurveEquation
from .following import CurveStatus, Limits, follow
from .metric import Metric
from .modes import outside_of_inference
from .special import Search, SpecialPoint
from .starting import first_tangent
from .steps import StepLengths
from .walk import CurvePoint, Walk


@dataclass(frozen=True)
class Sweep:
    """Solutions of one branch of `F(z, λ, *args) = 0` at given values of `λ`.

    Attributes:
        z: The solutions in the structure of `z0`, with an axis of values in front; NaN where there is none.
        parameter: The given values, `(values,)`.
        solved: Boolean, `(values,)`: the values that the branch reaches.
        status: `COMPLETE`, or why the branch ended before the first value that is not solved.
        reason: Account of a failure.
        special: Folds and branch points that the branch met, the fold at which it ended among them; `index`
            is the place of the value before.
        solutions: The `Solution` of each solved value.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor(-1.5, dtype=torch.float64)
        >>> sweep = implicitly.sweep(
        ...     lambda z, p: z**3 - z - p, z0, [-1.0, 0.0, 0.3, 1.0], on_failure="accept"
        ... )
        >>> sweep.status.name, sweep.solved.tolist(), round(sweep.special[0].parameter.item(), 6)
        ('FOLD', [True, True, True, False], 0.3849)
    """

    z: Any
    parameter: Tensor
    solved: Tensor
    status: CurveStatus
    reason: str
    special: tuple[SpecialPoint, ...]
    solutions: tuple[Solution, ...] = field(repr=False)


@outside_of_graphs
@outside_of_inference
def sweep(
    F: Callable[..., Any],
    z0: Any,
    parameters: Any,
    *args: Any,
    max_points: int = 1000,
    steps: StepLengths | None = None,
    sparsity: Any = None,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Sweep:
    """Solve `F(z, λ, *args) = 0` at each of several `λ`, along one branch, differentiably at each.

    From one value to the next the solution is followed as a curve, in as many steps as it takes, and not
    solved from the last one at once, which may end on another branch. Where the branch has a fold before
    the next value it ends: that value and all after it have no solution on it, and `status` is `FOLD`.

    Args:
        F: Gives the residual at `(z, λ, *args)`, see `continuation`.
        z0: A start near the solution at the first value.
        parameters: The values in the order in which they are visited: a tensor or a sequence of numbers
            with one axis. They need not be sorted.
        args: Further arguments of `F`.
        max_points: The most points between two values.
        steps: The rule for step lengths; `None` for `StepLengths()`.
        sparsity: The places of `∂F/∂z`; see `continuation`.
        solver: Solver of the start and of the solution at each value; see `continuation`.
        gradient: Gradient mode of the solutions; `None` for `Exact()`.
        on_failure: `"raise"` a `CurveError`, `"warn"` or `"accept"` where a value is not reached.

    Returns:
        The solutions, differentiable in `parameters` and in `args`.

    Raises:
        CurveError: A value was not reached, with `on_failure="raise"`; its `curve` is the `Sweep`.
        TypeError, ValueError: `parameters` is no row of finite numbers; and see `continuation`.

    Source: Allgower & Georg 1990, chapter 6; Seydel 2010, section 5.3 (the fold's test function).

    Examples:
        >>> import torch, implicitly
        >>> p = torch.tensor([0.0, 1.0, 6.0], dtype=torch.float64, requires_grad=True)
        >>> z = implicitly.sweep(lambda z, p: z**3 + z - p, torch.zeros((), dtype=torch.float64), p).z
        >>> z.sum().backward()
        >>> [round(entry, 4) for entry in z.tolist()], [round(entry, 4) for entry in p.grad.tolist()]
        ([0.0, 0.6823, 1.6344], [1.0, 0.4172, 0.1109])
    """
    one_of("on_failure", on_failure, POLICIES)
    check_integer("max_points", max_points, 2)
    if steps is not None and not isinstance(steps, StepLengths):
        raise TypeError(f"steps must be a StepLengths or None, got {steps!r}")
    equation = CurveEquation.of(F, z0, args)
    values = _row(equation, parameters)
    rule = steps or StepLengths()
    flat = equation.flat(z0).detach()
    first, failure = corrected_start(equation, flat, values[0].detach(), solver)
    recording = torch.is_grad_enabled()
    low, high = values.detach().min().item(), values.detach().max().item()
    reach = Limits((low, high), points=max_points, at_folds=True)
    course = _Course(equation, rule, reach, sparsity, solver, gradient, recording)
    if failure:
        found = course.result([], values, CurveStatus.NOT_A_ROOT, failure)
    else:
        with torch.no_grad():
            starts, status, reason = course.starts(
                first, values.detach(), float(flat.square().mean().sqrt())
            )
        found = course.result(starts, values, status, reason)
    refuse(found.status, found.reason, found, on_failure, equation.described, complete=True)
    return found


class _Course:
    """A branch followed from value to value."""

    def __init__(
        self,
        equation: CurveEquation,
        rule: StepLengths,
        limits: Limits,
        sparsity: Any,
        solver: Solver | None,
        gradient: Gradient | None,
        recording: bool,
    ) -> None:
        linearize = linearization(equation.constant(), sparsity)
        metric = Metric.of(equation.n, 1.0, 1.0, equation.like)
        walk = Walk(Corrector(linearize, metric), rule, rule.unknown is None)
        search = Search(equation, walk, solver, gradient, recording)
        self._following = Following(equation, walk, search, limits, solver, gradient)
        self._special: list[SpecialPoint] = []

    def starts(
        self, z: Tensor, values: Tensor, size: float
    ) -> tuple[list[Tensor], CurveStatus, str]:
        """The unknowns at the values that the branch reaches, and how it ended."""
        found = [z]
        w = torch.cat((z, values[:1]))
        tangent = first_tangent(self._following.walk.corrector, w, 1.0)
        if tangent is None:
            return (
                found,
                CurveStatus.SINGULAR_START if len(values) > 1 else CurveStatus.COMPLETE,
                "",
            )
        self._set_units(w, tangent, size)
        walk = self._following.walk
        point = walk.point(w, walk.metric.unit(tangent))
        length: float | None = None
        for value in values[1:].tolist():
            if isinstance(point, str):
                return found, CurveStatus.STEP_TOO_SMALL, point
            if value != float(point.w[-1]):
                status, reason, point, length = self._to(point, value, length, len(found) - 1)
                if status != CurveStatus.BOUND:
                    return found, status, reason
            found.append(point.w[:-1])
        return found, CurveStatus.COMPLETE, ""

    def _set_units(self, w: Tensor, tangent: Tensor, size: float) -> None:
        given = self._following
        metric = units(w, tangent, given.limits, given.walk.rule, size)
        walk = replace(given.walk, corrector=replace(given.walk.corrector, metric=metric))
        assert given.search is not None  # for the type checker
        self._following = replace(given, walk=walk, search=replace(given.search, walk=walk))

    def _to(
        self, point: CurvePoint, value: float, length: float | None, index: int
    ) -> tuple[CurveStatus, str, CurvePoint, float]:
        """The branch from `point` to this value of the parameter."""
        given = self._following
        rises = value > float(point.w[-1])
        bounds = (-math.inf, value) if rises else (value, math.inf)
        if (point.slope > 0) != rises:
            # The determinant has the tangent as a row.
            point = replace(point, tangent=-point.tangent, sign=-point.sign)
        limits = replace(given.limits, parameter=bounds)
        trace = follow(given.walk, given.search, limits, point, first=length)
        self._special.extend(replace(special, index=index) for special in trace.special)
        reason = trace.reason
        if trace.status == CurveStatus.FOLD and trace.special:
            reason = f"at the parameter {trace.special[-1].parameter.item():.8g}"
        return trace.status, reason, trace.points[-1], trace.length

    def result(
        self, starts: list[Tensor], values: Tensor, status: CurveStatus, reason: str
    ) -> Sweep:
        """The solutions with their derivatives."""
        equation = self._following.equation
        solutions = [
            solution_at(self._following, start, value)
            for start, value in zip(starts, values, strict=False)
        ]
        rows = [equation.flat(solution.value) for solution in solutions]
        rows += [equation.like.new_full((equation.n,), math.nan)] * (len(values) - len(rows))
        solved = torch.arange(len(values), device=values.device) < len(starts)
        return Sweep(
            equation.structured(torch.stack(rows)), values, solved, status, reason,
            tuple(self._special), tuple(solutions),
        )  # fmt: skip


def _row(equation: CurveEquation, parameters: Any) -> Tensor:
    """The values of the parameter as a tensor `(values,)`."""
    if isinstance(parameters, Tensor):
        if parameters.dim() != 1 or len(parameters) == 0:
            raise ValueError(
                "parameters must have one axis of at least one value, got a tensor of shape "
                f"{tuple(parameters.shape)}"
            )
        for value in parameters:
            equation.number("each of parameters", value)
        return parameters.to(equation.like)
    if not isinstance(parameters, (list, tuple)) or not parameters:
        raise TypeError(f"parameters must be a tensor or a sequence of numbers, got {parameters!r}")
    return torch.stack([equation.number("each of parameters", value) for value in parameters])
