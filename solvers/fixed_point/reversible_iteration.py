"""An iteration for fixed points that can be run backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ...options.options import is_number
from ..interface.problem import Problem
from ..interface.solver import Solver

Map = Callable[[Tensor], Tensor]


@dataclass
class ReversibleState:
    """Both iterates in float64, and the residual of the second in the dtype of the problem."""

    y: Tensor
    z_wide: Tensor
    value: Tensor
    """`f(z)`, in float64."""
    residual: Tensor

    @property
    def z(self) -> Tensor:
        """The iterate, `(batch, n)`."""
        return self.z_wide.to(self.residual.dtype)


@dataclass(frozen=True)
class ReversibleIteration(Solver):
    """Two coupled relaxed iterations, `y ← (1 − β) y + β f(z)` and then `z ← (1 − β) z + β f(y)`.

    Given `f(y)` and `f(z)` each half can be inverted, so that differentiation needs no stored iterates:
    see the gradient mode `Reversible`. Both iterates are kept in float64. A step needs two evaluations.

    Attributes:
        relaxation: `β`, in `(0, 2)` and not 1.

    Raises:
        ValueError: `relaxation` is out of range.
        TypeError: When solving, the equation is a root.

    Source: McCallum, Arora & Foster 2025, arXiv:2509.12917.

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.ReversibleIteration(relaxation=0.8)
        >>> z = implicitly.fixed_point(torch.cos, torch.tensor(1.0), solver=solver).value
        >>> round(z.item(), 4)
        0.7391
    """

    relaxation: float = 0.5

    def __post_init__(self) -> None:
        if not (is_number(self.relaxation, 0) and 0 < self.relaxation < 2 and self.relaxation != 1):
            raise ValueError(f"relaxation must be in (0, 2) and not 1, got {self.relaxation!r}")

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> ReversibleState:
        if problem.form != "fixed_point":
            raise TypeError(
                "ReversibleIteration needs a fixed point z = f(z), and this equation is a root "
                "F(z) = 0: state it as one, or use another solver"
            )
        wide = z.double()
        return ReversibleState(wide, wide, (z + residual).double(), residual)

    def step(self, problem: Problem, state: ReversibleState) -> ReversibleState:
        dtype, beta = state.residual.dtype, self.relaxation
        y = forward_half(state.y, state.value, beta)
        z = forward_half(state.z_wide, problem.value(y.to(dtype)).double(), beta)
        narrow = z.to(dtype)
        value = problem.value(narrow)
        return ReversibleState(y, z, value.double(), value - narrow)


def forward_half(old: Tensor, value: Tensor, beta: float) -> Tensor:
    """`(1 − β) old + β value`."""
    return (1.0 - beta) * old + beta * value


def backward_half(new: Tensor, value: Tensor, beta: float) -> Tensor:
    """Inverse of `forward_half`: the `old` that gives `new`."""
    return (new - beta * value) / (1.0 - beta)
