"""Least-squares problem: residuals with their standard start and known minima."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import Options, is_positive

Device = torch.device | str | None


@dataclass(frozen=True)
class LeastSquaresProblem(Options):
    """Residuals whose sum of squares is to be minimised.

    Attributes:
        name: Name in the registry.
        number: Its number in the collection of Moré, Garbow & Hillstrom (1981).
        source: Author and year.
        function: Gives the residuals, `(..., m)`, along the last axis, from unknowns `(..., n)`.
        first: The standard start.
        minima: Sums of squares at known minima, the least one first, as the literature has them (six
            digits).
        at: Where the least minimum is, if it is a known point of finite size.
        unique: The Hessian at the least minimum is regular.
        start_scale: Factor on the standard start: 1, 10 and 100 in the literature.

    Raises:
        ValueError: `start_scale` is not a number above zero.

    Examples:
        >>> from implicitly.problems import least_squares
        >>> problem = least_squares.get("rosenbrock")
        >>> problem.start().tolist(), problem.residual(problem.start()).tolist()
        ([-1.2, 1.0], [-4.3999999999999995, 2.2])
    """

    name: str
    number: int
    source: str
    function: Callable[[Tensor], Tensor]
    first: tuple[float, ...]
    minima: tuple[float, ...]
    at: tuple[float, ...] | None = None
    unique: bool = True
    start_scale: float = 1.0

    def __post_init__(self) -> None:
        if not is_positive(self.start_scale):
            raise ValueError(f"start_scale must be a number > 0, got {self.start_scale!r}")

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return len(self.first)

    def start(self, dtype: torch.dtype = torch.float64, device: Device = None) -> Tensor:
        """The standard start times `start_scale`, `(n,)`."""
        first = torch.tensor(self.first, dtype=torch.float64) * self.start_scale
        return first.to(dtype=dtype, device=device)

    def residual(self, z: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        """The residuals at `z`, `(..., m)`.

        Args:
            z: The unknowns, `(..., n)`.
            shift: A parameter to differentiate by: residual `i` is reduced by `shift · cos i`. The minima
                that are known are those for zero.
        """
        residual = self.function(z)
        index = torch.arange(1, residual.shape[-1] + 1, dtype=z.dtype, device=z.device)
        return residual - shift * torch.cos(index)
