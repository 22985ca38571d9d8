"""`fold`: the value of a parameter at which two solutions meet, as an implicit function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from ...options.options import one_of
from ...solvers import Solution, Solver
from ..gradients import Gradient
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import POLICIES, FailurePolicy
from .continuing import linearization
from .corrector import Corrector
from .equation import CurveEquation
from .metric import Metric
from .modes import outside_of_inference
from .singular import solve_fold
from .starting import first_tangent


@outside_of_graphs
@outside_of_inference
def fold(
    F: Callable[..., Any],
    z0: Any,
    parameter: Any,
    *args: Any,
    null: Any = None,
    sparsity: Any = None,
    solver: Solver | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
) -> Solution:
    """The fold of `F(z, λ, *args) = 0` near `(z0, parameter)`, differentiable in every tensor of `args`.

    The fold is a root of the extended system `F = 0`, `F_z v = 0`, `v_k = 1`, which is regular where the
    fold is simple, so that its `λ`, its `z` and its `v` have derivatives of every order: how the limit of a
    structure or the ignition of a reactor depends on its data. `continuation` calls it where a curve turns.

    Args:
        F: Gives the residual at `(z, λ, *args)`, in the structure of `z`; it is differentiated three times
            for first derivatives of the fold.
        z0: A point near the fold: a real tensor or a pytree of them.
        parameter: `λ` near it.
        args: Further arguments of `F`, as of `root`.
        null: A vector near the null vector of `∂F/∂z`, in the structure of `z0`; `None` for the direction
            in which solutions change at the start, which is near it beside a fold. Its largest entry
            chooses `k`.
        sparsity: The places of `∂F/∂z`, see `root`, where `null` is not given.
        solver: Solver of the extended system; `None` for the default of `root`, and above 512 unknowns for
            Newton's method with sparse factors.
        gradient: The gradient mode; `None` for `Exact()`.
        on_failure: `"raise"` a `SolveError`, `"warn"` or `"accept"` where no fold is found.

    Returns:
        The solution, whose `value` is a `Fold`.

    Raises:
        SolveError: No fold was found, with `on_failure="raise"`.
        TypeError, ValueError: See `continuation`.
        RuntimeError: A transform of `torch.func` is active, and `null` is not given.

    Source: Moore & Spence 1980, equation 2.1; Seydel 2010, section 5.4.

    Examples:
        >>> import torch, implicitly
        >>> F = lambda z, p, b: z**3 - b * z - p  # A cusp: the folds are at p² = 4 b³ / 27.
        >>> b = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        >>> found = implicitly.fold(F, torch.tensor(-0.9, dtype=torch.float64), 1.9, b).value
        >>> found.parameter.backward()
        >>> round(found.parameter.item(), 8), round(b.grad.item(), 8)  # 2 (b/3)^1.5 and √(b/3)
        (2.0, 1.0)
    """
    one_of("on_failure", on_failure, POLICIES)
    equation = CurveEquation.of(F, z0, args, within_transforms=null is not None)
    at = equation.number("parameter", parameter)
    z = equation.flat(z0).detach()
    if null is None:
        vector = _direction(equation.constant(), z, at.detach(), sparsity)
    else:
        if tree_flatten(null)[1] != equation.spec or equation.flat(null).shape != z.shape:
            raise ValueError("null must have the structure and the shapes of z0")
        vector = equation.flat(null).detach().to(z)
    return solve_fold(
        equation, z, at, vector, solver=solver, gradient=gradient, on_failure=on_failure
    )


def _direction(equation: CurveEquation, z: Tensor, parameter: Tensor, sparsity: Any) -> Tensor:
    """The direction in which the solution changes along the curve, `(n,)`."""
    w = torch.cat((z, parameter.reshape(1)))
    with torch.no_grad():
        corrector = Corrector(linearization(equation, sparsity), Metric.of(len(z), 1.0, 1.0, z))
        tangent = first_tangent(corrector, w, 1.0)
    if tangent is None or not bool(tangent[:-1].any()):
        raise ValueError(
            "the Jacobian of F at z0 gives no direction to a fold: it is not finite, not of full rank, or "
            "the solution does not change with the parameter. Give null=, or a start nearer to the fold"
        )
    return tangent[:-1]
