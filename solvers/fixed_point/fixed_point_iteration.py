"""Plain iteration, optionally damped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...options.options import is_positive
from ..interface.plain import PlainSteps, Point
from ..interface.problem import Problem
from ..interface.solver import Solver


@dataclass
class FixedPointState:
    """Iterate and residual."""

    z: Tensor
    residual: Tensor


@dataclass(frozen=True)
class FixedPointIteration(Solver):
    """`z ← z + damping · r(z)`: Picard's iteration, and Richardson's for roots.

    For a fixed point this is `z ← (1 − damping) z + damping f(z)`, for a root `z ← z − damping F(z)`.
    It converges linearly where the spectral radius of `I + damping ∂r/∂z` is below one. For a root,
    `damping` carries the scale of `F`: this solver, unlike the others, does not estimate it.

    Attributes:
        damping: Step length, in `(0, 2)` for fixed points and any positive number for roots.

    Raises:
        ValueError: `damping` is not a positive number.

    Source: Richardson 1911; Banach 1922.

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.FixedPointIteration(damping=0.5)
        >>> z = implicitly.fixed_point(lambda z: 2.0 / z, torch.tensor(1.0), solver=solver).value
        >>> round(z.item(), 4)
        1.4142
    """

    damping: float = 1.0
    suits: ClassVar[str] = "contractions; the baseline"

    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        if not is_positive(self.damping):
            raise ValueError(f"damping must be a positive number, got {self.damping!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> FixedPointState:
        return FixedPointState(z, residual)

    def plain_steps(self, problem: Problem, state: FixedPointState) -> PlainSteps:
        def advance(z: Tensor, residual: Tensor) -> Point:
            z = z.add(residual, alpha=self.damping)
            return z, problem.residual(z)

        return PlainSteps(advance, None, lambda _, now, __: FixedPointState(*now))

    def step(self, problem: Problem, state: FixedPointState) -> FixedPointState:
        z = state.z.add(state.residual, alpha=self.damping)
        return FixedPointState(z, problem.residual(z))
