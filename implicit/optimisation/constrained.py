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

from ...solvers import Callback, Check, Solution, SolveError, Solver, SolveWarning, Status, Stopping
from ...solvers.interface.check import Watcher
from ..calls.settings import Settings
from ..calls.solving import solve_equation, with_keywords
from ..gradients import Gradient
from ..surroundings.arguments import describe
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import ADVICE, FailurePolicy, level_of_caller
from ..surroundings.keywords import check_keywords, options_of
from .active_bounds import ActiveBounds
from .augmented import approximate_minimum
from .bounds import Conditions, bounds_like
from .judging import judged
from .lagrangian import ConstrainedMinimum, Lagrangian, active_constraints
from .minima import minimise
from .observing import observe
from .vectors import Vectors


@outside_of_graphs
def constrained_minimum(
    objective: Callable[..., Any],
    z0: Any,
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
    trace: bool = False,
    callback: Callback | None = None,
    has_aux: bool = False,
    progress: bool = False,
    history: bool = False,
    **keywords: Any,
) -> Solution:
    """Find a local minimum of `f(z, *args)` subject to `c(z, *args) = 0`, `g(z, *args) ≤ 0` and bounds.

    Differentiable in every tensor of `args` and in the bounds, to every order, with the active constraints
    held fixed. For smooth functions of few unknowns: dense matrices are formed. Where an active constraint
    has the multiplier zero, the minimum has a kink, its derivatives are those of one side, and
    `Solution.bounds.one_sided` says so.

    Args:
        objective: `f`: one real number for each problem, of the shape of the `batch_dims` leading axes.
        z0: The start: a floating-point tensor or a pytree of them, of one dtype, whose first axes are those
            of the problems. It lies between the bounds and may violate the other constraints.
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
        trace: Record the residual norms of the conditions of optimality; see `root`.
        callback: Called at every check of their solve; see `root`. An iterate is a `ConstrainedMinimum`.
        has_aux: The objective returns a pair, the number and what is to be `Solution.aux`; see `root`.
        progress: Write lines of progress of that solve; see `root`.
        history: Keep the iterates of that solve; see `root`.
        keywords: Arguments of the objective and of both constraints by name.

    Returns:
        The solution: `value` is a `ConstrainedMinimum` whose `z` has the structure of `z0`, with the
        multipliers. `bounds.active` has −1 and 1 where a bound is active, 1 for active inequalities, and 2
        for equations. Residuals, steps and counts are those of the conditions of optimality.

    Raises:
        SolveError: A problem was not solved, with `on_failure="raise"`. The status is `INFEASIBLE` where the
            constraints contradict each other near the point found, `NO_QUALIFICATION` where multipliers do
            not exist, `NOT_A_MINIMUM` at other points with multipliers, and `UNBOUNDED`.
        TypeError: A function returns no tensor of the dtype of `z0`, or `z0` holds other than real tensors.
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
    _check(equalities, inequalities, bounds)
    described, vectors = describe(objective), Vectors.of(z0, batch_dims)
    args = (*args, *keywords.values())
    if bounds is not None:
        bounds = tuple(map(vectors.flat, bounds_like(z0, bounds)))
    lagrangian = Lagrangian(
        vectors.of_vector(_by_name(objective, described, keywords)),
        equalities and vectors.of_vector(_by_name(equalities, "equalities", keywords)),
        inequalities and vectors.of_vector(_by_name(inequalities, "inequalities", keywords)),
        described, batch_dims, has_aux,
    )  # fmt: skip
    fixed = tree_map(_constant, (vectors.flat(z0), args, bounds))
    with torch.no_grad():
        start, given, own = fixed
        lagrangian.check_derivatives(start, *given)
        near = approximate_minimum(lagrangian, minimise, start, given, own)
    lower, upper = (None, None) if bounds is None else bounds
    settings = Settings(
        "root", solver, stopping, gradient, batch_dims, "accept", False,
        batched_args, trace, _in_structure(callback, vectors),
        has_aux=has_aux, progress=progress, history=history, bounds=(
            ConstrainedMinimum(lower, -torch.inf, 0.0),
            ConstrainedMinimum(upper, torch.inf, torch.inf),
        ),
    )  # fmt: skip
    solution = solve_equation(Conditions(lagrangian), near.at, args, settings, described)
    with torch.no_grad():
        found = ConstrainedMinimum(*(leaf.detach() for leaf in solution.value))
        box = bounds_like(start, (None, None) if own is None else own)
        status = judged(lagrangian, found, solution.status, near, start, box, given)
    solution = replace(
        solution,
        value=_built(solution.value, vectors),
        status=status,
        bounds=_active(active_constraints(solution.bounds), vectors),
        history=None
        if solution.history is None
        else [_built(z, vectors) for z in solution.history],
    )
    observe(_report(on_failure, described, solution), status)
    return solution


_OPTIONS = options_of(constrained_minimum)


def _by_name(
    function: Callable[..., Any], name: str, keywords: dict[str, Any]
) -> Callable[..., Any]:
    """The function with keyword arguments as its last ones."""
    if not keywords:
        return function
    check_keywords(name, function, keywords, _OPTIONS)
    return with_keywords(function, (), keywords)[0]


def _built(at: ConstrainedMinimum, vectors: Vectors) -> ConstrainedMinimum:
    return at._replace(z=vectors.build(at.z))


def _active(bounds: ActiveBounds, vectors: Vectors) -> ActiveBounds:
    return replace(bounds, active=_built(bounds.active, vectors))


def _in_structure(callback: Callback | None, vectors: Vectors) -> Callback | None:
    """The callback, which sees iterates whose `z` has the structure of the start."""
    watcher = Watcher.of(callback)
    if watcher is None or vectors.plain:
        return callback

    def watch(check: Check) -> bool:
        return watcher(check.of(lambda at: _built(at, vectors)))

    return watch


def _check(equalities: object, inequalities: object, bounds: object) -> None:
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
