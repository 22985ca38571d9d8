"""`constrained_minimum`: a differentiable minimum with equations, inequalities and bounds as constraints.

An augmented Lagrangian finds an approximate minimum. From there the conditions of Karush, Kuhn and Tucker are
solved as a mixed complementarity problem, which has the derivatives; `judging` tells how it ended.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...solvers import Solution, SolveError, Solver, SolveWarning, Status, Stopping
from ..calls.settings import Settings
from ..calls.solving import solve_equation
from ..gradients import Gradient
from ..surroundings.arguments import describe
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import ADVICE, FailurePolicy, level_of_caller
from .augmented import approximate_minimum
from .bounds import Conditions, bounds_like
from .judging import judged
from .lagrangian import ConstrainedMinimum, Lagrangian, active_constraints
from .minima import minimise
from .observing import observe


@outside_of_graphs
def constrained_minimum(
    objective: Callable[..., Any],
    z0: Tensor,
    *args: Any,
    equalities: Callable[..., Any] | None = None,
    inequalities: Callable[..., Any] | None = None,
    bounds: Any = None,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    batched_args: Sequence[bool] | None = None,
) -> Solution:
    """Find a local minimum of `f(z, *args)` subject to `c(z, *args) = 0`, `g(z, *args) ≤ 0` and bounds.

    Differentiable in every tensor of `args` and in the bounds, to every order, with the active constraints
    held fixed. For smooth functions of few unknowns: dense matrices are formed. Where an active constraint
    has the multiplier zero, the minimum has a kink, its derivatives are those of one side, and
    `Solution.bounds.one_sided` says so.

    Args:
        objective: `f`: one real number for each problem, of the shape of the `batch_dims` leading axes.
        z0: The start, `(*batch, n)`, between the bounds; it may violate the other constraints.
        args: Pytrees of tensors and constants, which the objective and both constraints get.
        equalities: `c`, `(*batch, p)`; `None` for none.
        inequalities: `g`, `(*batch, m)`; `None` for none. They may be evaluated where they are violated.
        bounds: `(lower, upper)` on `z`; the functions are evaluated between them alone. See `root`.
        solver: The solver of the conditions of optimality, one for `complementarity`; `None` for
            `ProjectedNewton()`.
        stopping: Tolerances and limits of that solver; see `root`.
        gradient: The gradient mode; see `root`.
        batch_dims: Leading axes that index independent problems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        batched_args: True for each argument with one entry per problem; see `root`.

    Returns:
        The solution: `value` is a `ConstrainedMinimum`, with the multipliers. `bounds.active` has −1 and 1
        where a bound is active, 1 for active inequalities, and 2 for equations. Residuals, steps and counts
        are those of the conditions of optimality.

    Raises:
        SolveError: A problem was not solved, with `on_failure="raise"`. The status is `INFEASIBLE` where the
            constraints contradict each other near the point found, `NO_QUALIFICATION` where multipliers do
            not exist, `NOT_A_MINIMUM` at other points with multipliers, and `UNBOUNDED`.
        TypeError: A function returns no tensor of the dtype of `z0`, or `z0` is no real tensor.
        ValueError: A function returns another shape, or there are no constraints.
        MissingDerivativeError: A function depends on `z` and has no derivative.

    Source: Birgin & Martínez 2014, algorithm 4.1 (augmented Lagrangian); Hintermüller, Ito & Kunisch 2003
    (semismooth Newton steps); Fiacco 1983, theorem 3.2.2 (derivatives).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> z = implicitly.constrained_minimum(  # The point of the disc of radius x with the least sum.
        ...     lambda z, x: z.sum(-1),
        ...     torch.zeros(2, dtype=torch.float64),
        ...     x,
        ...     inequalities=lambda z, x: (z.square().sum(-1) - x**2).unsqueeze(-1),
        ... ).value.z
        >>> z[0].backward()
        >>> round(z[0].item(), 6), round(x.grad.item(), 6)
        (-1.414214, -0.707107)
    """
    _check(z0, batch_dims, equalities, inequalities, bounds)
    described = describe(objective)
    lagrangian = Lagrangian(objective, equalities, inequalities, described, batch_dims)
    fixed = tree_map(_constant, (z0, args, bounds))
    with torch.no_grad():
        start, given, own = fixed
        lagrangian.check_derivatives(start, *given)
        near = approximate_minimum(lagrangian, minimise, start, given, own)
    lower, upper = (None, None) if bounds is None else bounds
    settings = Settings(
        "root", solver, stopping, gradient, batch_dims, "accept", False,
        batched_args, False, None,
        bounds=(
            ConstrainedMinimum(lower, -torch.inf, 0.0),
            ConstrainedMinimum(upper, torch.inf, torch.inf),
        ),
    )  # fmt: skip
    solution = solve_equation(Conditions(lagrangian), near.at, args, settings, described)
    with torch.no_grad():
        found = ConstrainedMinimum(*(leaf.detach() for leaf in solution.value))
        box = bounds_like(start, (None, None) if own is None else own)
        status = judged(lagrangian, found, solution.status, near, start, box, given)
    solution = replace(solution, status=status, bounds=active_constraints(solution.bounds))
    observe(_report(on_failure, described, solution), status)
    return solution


def _check(
    z0: Any, batch_dims: int, equalities: object, inequalities: object, bounds: object
) -> None:
    if not isinstance(z0, Tensor) or not z0.is_floating_point():
        what = z0.dtype if isinstance(z0, Tensor) else type(z0).__name__
        raise TypeError(f"z0 must be a real floating-point tensor, got {what}")
    if z0.dim() != batch_dims + 1:
        raise ValueError(
            f"z0 must have one axis of unknowns behind the axes of the problems, {batch_dims} with "
            f"batch_dims={batch_dims}, got shape {tuple(z0.shape)}"
        )
    if equalities is None and inequalities is None:
        way = "minimise(..., bounds=...)" if bounds is not None else "minimise"
        raise ValueError(f"give equalities or inequalities; without them call {way}")
    if bounds is not None and (not isinstance(bounds, (tuple, list)) or len(bounds) != 2):
        raise TypeError(f"bounds must be a pair (lower, upper), got {bounds!r}")


def _constant(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _report(policy: FailurePolicy, described: str, solution: Solution) -> Callable[[Tensor], None]:
    def report(status: Tensor) -> None:
        failed = (status != Status.CONVERGED).nonzero().tolist()
        if policy == "accept" or not failed:
            return
        codes = sorted({int(status[tuple(index)]) for index in failed})
        lines = [
            f"no minimum of {described} was found: {len(failed)} of {status.numel()} problems failed."
        ]
        lines += [
            f"  {Status(code).name}: {Status(code).message}; {ADVICE[Status(code)]}."
            for code in codes
        ]
        lines.append(f"  The first is problem {tuple(failed[0])}.")
        message = "\n".join(lines)
        if policy == "raise":
            raise SolveError(message, solution)
        warnings.warn(message, SolveWarning, stacklevel=level_of_caller())

    return report
