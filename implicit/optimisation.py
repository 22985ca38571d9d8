"""`least_squares` and `minimise`: differentiable minimisers of an objective from a start and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..solvers import (
    Callback,
    GaussNewton,
    Solution,
    Solver,
    Stopping,
)
from ..solvers.interface.loss import Loss
from .functional import solve_equation, with_keywords
from .gradients import Gradient
from .settings import Settings
from .stationarity import Stationarity
from .surroundings.arguments import describe
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy


@outside_of_graphs
def least_squares(
    r: Callable[..., Any],
    z0: Any,
    *args: Any,
    loss: Loss | None = None,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    batched_args: Sequence[bool] | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    **keywords: Any,
) -> Solution:
    """X"""
    settings = Settings(
        "root", solver or GaussNewton(), stopping, gradient, batch_dims, on_failure, False,
        None if batched_args is None else tuple(batched_args), trace, callback,
    )  # fmt: skip
    described = describe(r)
    function, args = with_keywords(r, args, keywords) if keywords else (r, args)
    equation = Stationarity(function, described, batch_dims, residuals=True, loss=loss)
    return solve_equation(equation, z0, args, settings, described)
