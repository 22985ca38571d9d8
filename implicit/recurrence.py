"""Recurrences solved for all time steps at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..solvers import CausalNewton, Solution, Solver, Stopping
from .calls.settings import Settings
from .calls.solving import solve_equation
from .gradients import Exact, Gradient
from .surroundings.arguments import describe
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy


@outside_of_graphs
def recurrence(
    f: Callable[..., Tensor],
    s0: Tensor,
    xs: Tensor,
    *args: Any,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    on_failure: FailurePolicy = "raise",
    trace: bool = False,
) -> Solution:
    """All states of `s_t = f(s_{t−1}, x_t, *args)`, found together instead of one after the other.

    The states of all times are the fixed point of one equation, which `CausalNewton` solves by a few
    evaluations of `f` on all times at once, instead of one for each time. It pays where a call of `f` on
    one time step leaves most of the device idle.

    Args:
        f: Gives the next states from rows of states, `(rows, *state)`, and of inputs,
            `(rows, *input)`; each row of the result may depend on its own row alone. A module such
            as `torch.nn.GRUCell` with its arguments exchanged fits.
        s0: The states before the first time step, `(batch, *state)`.
        xs: The inputs, `(batch, T, *input)`.
        args: Further arguments of `f`, as of `fixed_point`.
        solver: The solver; `None` for `CausalNewton` with the size of a state as its `block`.
        stopping: Tolerances and limits; `None` for the defaults of the dtype.
        gradient: The gradient mode; `None` for `Exact` with that `CausalNewton`, which solves the adjoint
            by one scan.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        trace: Record residual norms; see `root`.

    Returns:
        The solution, whose value is `s_1 … s_T`, `(batch, T, *state)`; differentiable in `s0`, `xs`,
        `args` and leaf tensors that `f` closes over.

    Raises:
        TypeError: `s0` or `xs` is not a tensor.
        ValueError: Their shapes do not fit.
        SolveError: A sequence was not solved, with `on_failure="raise"`.

    Source: Lim et al. 2024, arXiv:2309.12252.

    Examples:
        >>> import torch, implicitly
        >>> xs = torch.randn(2, 500, 3, dtype=torch.float64)
        >>> s0 = torch.zeros(2, 3, dtype=torch.float64)
        >>> solution = implicitly.recurrence(lambda s, x: torch.tanh(0.8 * s.roll(1, 1) + x), s0, xs)
        >>> solution.value.shape, bool(solution.converged.all()), int(solution.steps.max()) < 10
        (torch.Size([2, 500, 3]), True, True)
    """
    for name, value, axes in (("s0", s0, 1), ("xs", xs, 2)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.ndim < axes:
            raise ValueError(
                f"{name} must have at least {axes} axes, got shape {tuple(value.shape)}"
            )
    if s0.shape[0] != xs.shape[0]:
        raise ValueError(
            f"s0, (batch, ...), and xs, (batch, T, ...), must agree in their first axis, got shapes "
            f"{tuple(s0.shape)} and {tuple(xs.shape)}"
        )
    unknowns = math.prod(s0.shape[1:]) * (2 if s0.is_complex() else 1)
    causal = CausalNewton(block=max(unknowns, 1))
    settings = Settings(
        "fixed_point", solver or causal, stopping, gradient or Exact(solver=causal), 1, on_failure,
        trace=trace,
    )  # fmt: skip
    start = s0.unsqueeze(1).expand(-1, xs.shape[1], *s0.shape[1:])

    def states(z: Tensor, s0: Tensor, xs: Tensor, *args: Any) -> Tensor:
        before = torch.cat((s0.unsqueeze(1), z[:, :-1]), dim=1)
        rows = f(before.flatten(0, 1), xs.flatten(0, 1), *args)
        return rows.reshape(z.shape) if rows.numel() == z.numel() else rows

    return solve_equation(states, start, (s0, xs, *args), settings, describe(f))
