"""Plain steps, which the driver takes by itself while nothing ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Point = tuple[Tensor, Tensor]
"""An iterate and its residual."""


@dataclass(frozen=True)
class PlainSteps:
    """The next steps of a solver, if they need nothing but the last iterate and its residual.

    Most looks at such steps find that every system goes on, which takes a fraction of a step's bookkeeping.

    Attributes:
        advance: The next iterate and its residual.
        slowest: The largest factor on the norms of residuals with which such steps go on; `None` for any.
        state: The state of the solver from the last two points and the number of steps taken.

    Examples:
        >>> import torch
        >>> from implicitly.solvers import FixedPointIteration, Problem
        >>> solver, problem = FixedPointIteration(), Problem(torch.cos)
        >>> z = torch.zeros(1, 1)
        >>> plain = solver.plain_steps(problem, solver.init(problem, z, problem.residual(z)))
        >>> plain.advance(z, problem.residual(z))[0].item()
        1.0
    """

    advance: Callable[[Tensor, Tensor], Point]
    slowest: float | None
    state: Callable[[Point, Point, int], Any]
