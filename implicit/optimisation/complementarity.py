"""Complementarity problems: `l ≤ z ≤ u`, where `F` vanishes between the bounds and pushes outwards on them.

    F_j(z) ≥ 0 where z_j = l_j,    F_j(z) = 0 where l_j < z_j < u_j,    F_j(z) ≤ 0 where z_j = u_j

With `l = 0` and no upper bounds this is `0 ≤ z ⊥ F(z) ≥ 0`. `complementarity` solves it. Where two
expressions of an equation of your own are complementary, `0 ≤ a ⊥ b ≥ 0`, `minimum_map` or
`fischer_burmeister` makes an equation of that, for `root`.

Source: Facchinei & Pang 2003, sections 1.1 and 1.5; Fischer 1992.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...solvers import Callback, Solution, Solver, Stopping
from ..calls.settings import Settings
from ..calls.solving import solve_equation, with_keywords
from ..gradients import Gradient
from ..surroundings.arguments import describe
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import FailurePolicy
from ..surroundings.keywords import check_keywords, options_of
from .bounds import Conditions


@outside_of_graphs
def complementarity(
    F: Callable[..., Any],
    z0: Any,
    *args: Any,
    bounds: Any = (0.0, None),
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
    """Solve `l ≤ z ≤ u ⊥ F(z, *args)` for `z`, differentiably in every tensor of `args` and in the bounds.

    The equation that is differentiated holds the active bounds fixed: it is `z_j = l_j` or `z_j = u_j` for
    unknowns that a bound holds back, and `F_j = 0` for the others. Where `F_j` vanishes on a bound as well,
    the solution has a kink, its derivatives are those of one side, and `Solution.bounds.one_sided` says so.

    Args:
        F: Gives one number for each unknown, in the structure, shapes and device of `z`; see `root`. It is
            evaluated between the bounds alone.
        z0: The start, between the bounds: a floating-point tensor or a pytree of them.
        args: Pytrees and dataclasses of tensors and constants.
        bounds: `(lower, upper)`; see `root`. The default is `0 ≤ z ⊥ F(z) ≥ 0`. With equal bounds an unknown
            is fixed; with none for some of them the problem is mixed.
        solver: The solver; `None` for `ProjectedNewton()`.
        stopping: Tolerances and limits; see `root`. Residuals are those of the reduced equation.
        gradient: The gradient mode; see `root`.
        batch_dims: Leading axes that index independent problems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        batched_args: True for each argument with one entry per problem; see `root`.
        trace: Record residual norms; see `root`.
        callback: Called at every check; see `root`.
        has_aux: `F` returns a pair, its values and what is to be `Solution.aux`; see `root`.
        progress: Write lines of progress; see `root`.
        history: Keep iterates; see `root`.
        keywords: Arguments of `F` by name.

    Returns:
        The solution; `bounds` has the active ones.

    Raises:
        SolveError: A problem was not solved, with `on_failure="raise"`.
        TypeError: See `root`.
        ValueError: The bounds cross, or the start lies outside of them. See `root` for others.
        CapturedTensorError: See `root`.

    Source: Hintermüller, Ito & Kunisch 2003 (semismooth Newton steps); Facchinei & Pang 2003, section 5.4
    (derivatives of solutions).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
        >>> z0 = torch.ones(2, dtype=torch.float64)
        >>> z = implicitly.complementarity(lambda z, x: z**3 + z - x, z0, x).value
        >>> z.sum().backward()
        >>> [round(entry, 6) for entry in z.tolist()], round(x.grad[0].item(), 6)  # 1 / (3 z² + 1)
        ([1.0, 0.0], 0.25)
    """
    settings = Settings(
        "root", solver, stopping, gradient, batch_dims, on_failure, False,
        batched_args, trace, callback, has_aux=has_aux,
        progress=progress, history=history, bounds=bounds,
    )  # fmt: skip
    described = describe(F)
    if keywords:
        check_keywords(described, F, keywords, _OPTIONS)
        F, args = with_keywords(F, args, keywords)
    return solve_equation(Conditions(F, described, has_aux), z0, args, settings, described)


_OPTIONS = options_of(complementarity)


def minimum_map(a: Tensor, b: Tensor) -> Tensor:
    """`min(a, b)`: zero where both are ≥ 0 and one is zero; where they are equal, with the derivative of `a`.

    Examples:
        >>> import torch
        >>> minimum_map(torch.tensor([0.0, 3.0, -1.0]), torch.tensor([2.0, 0.0, 0.0])).tolist()
        [0.0, 0.0, -1.0]
    """
    return torch.where(a <= b, a, b)


def fischer_burmeister(a: Tensor, b: Tensor) -> Tensor:
    """`a + b − √(a² + b²)`: zero where both are ≥ 0 and one is zero, and smooth but at `(0, 0)`.

    At `(0, 0)` it has the slope `1 − 1/√2` in both, one of its generalised derivatives.

    Source: Fischer 1992.

    Examples:
        >>> import torch
        >>> fischer_burmeister(torch.tensor([0.0, 3.0, -1.0]), torch.tensor([2.0, 0.0, 0.0])).tolist()
        [0.0, 0.0, -2.0]
    """
    square = a * a + b * b
    length = torch.where(square > 0, square, 1.0).sqrt()
    total = a + b
    # The difference of numbers that are nearly the same has no digits: 2 a b / (a + b + √…) has.
    ahead = total > 0
    above = 2 * a * b / torch.where(ahead, total + length, 1.0)
    smooth = (1 - 1 / math.sqrt(2)) * total
    return torch.where(square > 0, torch.where(ahead, above, total - length), smooth)
