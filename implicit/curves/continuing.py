"""`continuation`: the curve of solutions of an equation with one scalar parameter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_integer, check_truth, is_number, one_of
from ...solvers import SolveError, Solver, Status
from ..derivatives.given import GivenDerivatives
from ..functional import root
from ..gradients import Gradient
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import POLICIES, FailurePolicy
from .bordered import DenseLinearize, Linearize, SparseLinearize
from .corrector import Corrector
from .curve import Curve, CurveError, CurveWarning, Following
from .equation import CurveEquation
from .following import CurveStatus, Limits, Trace, follow
from .metric import Metric, root_mean_square
from .modes import outside_of_inference
from .singular import MOST_DENSE, solver_of
from .special import Search
from .starting import first_tangent
from .steps import StepLengths
from .walk import CurvePoint, Walk

# An unknown is zero below this part of its size at the given start.
_NOTHING = 1e-8
_DIRECTIONS = ("increasing", "decreasing")


@outside_of_graphs
@outside_of_inference
def continuation(
    F: Callable[..., Any],
    z0: Any,
    parameter: Any,
    *args: Any,
    bounds: tuple[float, float],
    direction: str = "increasing",
    max_points: int = 1000,
    unknown_bounds: tuple[float, float] = (-math.inf, math.inf),
    steps: StepLengths | None = None,
    special: bool = True,
    hopf: bool = False,
    sparsity: Any = None,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Curve:
    """Follow the solutions of `F(z, λ, *args) = 0` along `λ`, past folds, from a start to a bound.

    The curve is followed by its length (Keller's pseudo-arclength): the predictor goes along the tangent,
    and Newton's method solves `F = 0` in the plane across it, so that nothing happens at a fold, where `λ`
    turns back and `∂F/∂z` is singular. Folds and branch points between two points are found by test
    functions and solved for by extended systems, which are roots, so that `curve.folds[0].parameter` has
    exact derivatives in `args`, and so has `curve.at(λ)`. The points themselves, `curve.z`, carry none.

    Args:
        F: Gives the residual at `(z, λ, *args)` in the structure and shapes of `z`. `λ` comes as a tensor
            without axes.
        z0: A solution, or a start near one: a real tensor or a pytree of them. It is solved at `parameter`
            first; `Curve.corrected` tells how far it moved.
        parameter: The value of `λ` there: a number, or a tensor without axes.
        args: Further arguments of `F`, as of `root`.
        bounds: The least and the largest `λ`.
        direction: `"increasing"` or `"decreasing"`: the way in which `λ` goes at the start.
        max_points: The most points.
        unknown_bounds: The least and the largest value of any entry of `z`; the curve ends beyond.
        steps: The rule for step lengths; `None` for `StepLengths()`.
        special: Find folds and branch points.
        hopf: Find Hopf points too, at which steady states of `dz/dt = ± F` begin to oscillate: a pair of
            complex eigenvalues of `∂F/∂z` crosses the imaginary axis. All eigenvalues are computed at every
            point.
        sparsity: The places of `∂F/∂z`, see `root`. From 513 unknowns on they are found where they are not
            given.
        solver: Solver of the start, of special points and of `Curve.at`; `None` for the default of `root`,
            and above 512 unknowns for Newton's method with sparse factors.
        gradient: Gradient mode of special points and of `Curve.at`; `None` for `Exact()`.
        on_failure: `"raise"` a `CurveError`, `"warn"` or `"accept"` where the curve goes on and cannot be
            followed, or has no start.

    Returns:
        The curve, whose `status` says how it ended.

    Raises:
        CurveError: The start is no root, or no step succeeds, with `on_failure="raise"`. It has the curve
            so far.
        TypeError: `z0` is not real, or an argument has the wrong type.
        ValueError: `parameter` has axes or is outside of the bounds, these are crossed, or shapes do not fit.
        RuntimeError: A transform of `torch.func` is active.

    Source: Keller 1977 (pseudo-arclength); Allgower & Georg 1990, chapters 4 and 6 (tangents, step lengths);
    Moore & Spence 1980 (folds); Moore 1980 (branch points); Seydel 2010.

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z, p, a: z**2 - a - p  # A fold at p = −a, for z = 0.
        >>> a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> curve = implicitly.continuation(
        ...     F, torch.tensor(1.0, dtype=torch.float64), 0.0, a, bounds=(-3, 3), direction="decreasing"
        ... )
        >>> (fold,) = curve.folds
        >>> fold.parameter.backward()
        >>> round(fold.parameter.item(), 8), round(a.grad.item(), 8), curve.status.name
        (-2.0, -1.0, 'BOUND')
    """
    one_of("direction", direction, _DIRECTIONS)
    one_of("on_failure", on_failure, POLICIES)
    check_truth("special", special)
    check_truth("hopf", hopf)
    check_integer("max_points", max_points, 1)
    if steps is not None and not isinstance(steps, StepLengths):
        raise TypeError(f"steps must be a StepLengths or None, got {steps!r}")
    equation = CurveEquation.of(F, z0, args)
    at = equation.number("parameter", parameter)
    limits = Limits(
        _interval("bounds", bounds), _interval("unknown_bounds", unknown_bounds), max_points
    )
    low, high = limits.parameter
    if not low <= float(at.detach()) <= high:
        raise ValueError(f"parameter must be in bounds, [{low}, {high}], got {at.item()}")
    flat = equation.flat(z0).detach()
    start = corrected_start(equation, flat, at.detach(), solver)
    way = 1.0 if direction == "increasing" else -1.0
    # Special points are differentiable, where the caller records; the curve itself is not.
    recording = torch.is_grad_enabled()
    with torch.no_grad():
        following, trace = _followed(
            equation, flat, start, at.detach(), limits, steps or StepLengths(), special, hopf, sparsity,
            solver, gradient, way, recording,
        )  # fmt: skip
    moved = (start[0] - flat).abs().max().item()
    curve = Curve.of(following, trace, moved)
    refuse(curve.status, curve.reason, curve, on_failure, equation.described)
    return curve


def corrected_start(
    equation: CurveEquation, z: Tensor, parameter: Tensor, solver: Solver | None
) -> tuple[Tensor, str]:
    """The root at the start, `(n,)`, and an account of why it is none; empty where it is one."""
    constant = equation.constant()

    def at(z: Tensor, parameter: Tensor, *args: Any) -> Tensor:
        return constant.residual(z, parameter, *args)

    try:
        found = root(at, z, parameter, *constant.args, solver=solver_of(equation.n, solver))
    except SolveError as error:
        return z, f"{Status(int(error.solution.status)).name}: {error}"
    return found.value.detach(), ""


def refuse(
    status: CurveStatus,
    reason: str,
    curve: Any,
    on_failure: FailurePolicy,
    described: str,
    *,
    complete: bool = False,
) -> None:
    """Apply the failure policy to the end of a curve, or of a sweep, which is to be complete.

    Raises:
        CurveError: The curve failed, with `on_failure="raise"`.
    """
    failed = status != CurveStatus.COMPLETE if complete else status.failed
    if not failed or on_failure == "accept":
        return
    message = f"the solutions of {described} could not be followed: {status.message}"
    if reason:
        message += f" ({reason})"
    message += _ADVICE.get(status, "")
    if on_failure == "raise":
        raise CurveError(message, curve)
    warnings.warn(message, CurveWarning, stacklevel=4)


_ADVICE = {
    CurveStatus.FOLD: ". Leave out the values beyond, or follow the curve past the fold with continuation; "
    "on_failure='accept' returns what was reached",
    CurveStatus.MAX_POINTS: ". Allow more (max_points=...), or larger steps",
    CurveStatus.NOT_A_ROOT: ". Give a z0 nearer to a solution, or another solver",
    CurveStatus.SINGULAR_START: ". Start beside it, at another value of the parameter",
    CurveStatus.STEP_TOO_SMALL: ". Look whether the function has a kink or an end there; a smaller "
    "StepLengths(smallest=...) goes on for longer, and on_failure='accept' returns the curve so far",
}


def _followed(
    equation: CurveEquation,
    flat: Tensor,
    start: tuple[Tensor, str],
    parameter: Tensor,
    limits: Limits,
    steps: StepLengths,
    special: bool,
    hopf: bool,
    sparsity: Any,
    solver: Solver | None,
    gradient: Gradient | None,
    way: float,
    recording: bool,
) -> tuple[Following, Trace]:
    """The curve from the start `flat`, corrected, on which the parameter goes by `way`."""
    z, failure = start
    w = torch.cat((z, parameter.reshape(1)))
    given = float(flat.square().mean().sqrt())
    linearize = linearization(equation.constant(), sparsity)
    if hopf and not (special and isinstance(linearize, DenseLinearize)):
        raise ValueError(
            f"hopf=True needs special=True and dense matrices, of at most {MOST_DENSE} unknowns and without "
            f"sparsity=; got {equation.n} unknowns"
        )
    plain = Metric.of(equation.n, 1.0, 1.0, z)
    tangent = None if failure else first_tangent(Corrector(linearize, plain), w, way)
    metric = plain if tangent is None else units(w, tangent, limits, steps, given)
    walk = Walk(Corrector(linearize, metric), steps, steps.unknown is None)
    search = Search(equation, walk, solver, gradient, recording, hopf) if special else None
    following = Following(equation, walk, search, limits, solver, gradient)
    if tangent is None:
        status = CurveStatus.NOT_A_ROOT if failure else CurveStatus.SINGULAR_START
        nowhere = CurvePoint(w, torch.zeros_like(w), 0)
        return following, Trace([nowhere], [], status, failure)
    point = walk.point(w, metric.unit(tangent))
    if isinstance(point, str):
        alone = CurvePoint(w, metric.unit(tangent), 0)
        return following, Trace([alone], [], CurveStatus.SINGULAR_START, point)
    return following, follow(walk, search, limits, point)


def linearization(equation: CurveEquation, sparsity: Any) -> Linearize:
    """Dense Jacobians for few unknowns, sparse ones for many or where their places are given."""
    given = GivenDerivatives.of(None, sparsity, None)
    pattern = None if given is None else given.pattern
    if pattern is not None and pattern.n != equation.n:
        raise ValueError(
            f"sparsity must be a matrix of {equation.n} rows and columns, as many as there are unknowns, got "
            f"{pattern.n}"
        )
    if pattern is None and equation.n <= MOST_DENSE:
        return DenseLinearize(equation)
    return SparseLinearize(equation, pattern)


def units(w: Tensor, tangent: Tensor, limits: Limits, steps: StepLengths, given: float) -> Metric:
    """The units of a curve at its start, where the rule for steps has none.

    An unknown that is next to nothing beside the size of the `given` start is zero, and has the unit of that.
    """
    low, high = limits.parameter
    finite = math.isfinite(high - low)
    parameter = steps.parameter or (high - low if finite else max(1.0, abs(float(w[-1]))))
    rise, along = float(root_mean_square(tangent)), abs(float(tangent[-1]))
    # At a fold the tangent does not tell how far the unknown goes.
    reach = rise / along * parameter if along > 0 else 0.0
    size = float(root_mean_square(w))
    size = size if size > _NOTHING * given else given
    unknown = steps.unknown or max(size, reach) or 1.0
    return Metric.of(len(w) - 1, unknown, parameter, w)


def _interval(name: str, value: Any) -> tuple[float, float]:
    """Two numbers in order.

    Raises:
        TypeError: They are no two numbers.
        ValueError: They are crossed or NaN.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, the least and the largest, got {value!r}")
    for bound in value:
        if not (is_number(bound, -math.inf) or bound in (-math.inf, math.inf)):
            raise TypeError(f"{name} must be two numbers, got {value!r}")
    low, high = map(float, value)
    if not low < high:
        raise ValueError(f"{name} must be in order, the least first, got {value!r}")
    return low, high
