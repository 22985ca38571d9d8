"""A test problem with a curve of solutions: where it begins, where it turns and where others branch off."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..problem import Device, TestProblem


@dataclass(frozen=True)
class CurveProblem(TestProblem):
    """A test problem whose parameter, `argument`, is varied; folds and branch points are known.

    Class attributes:
        first_value: The value of the parameter at which the curve is begun.

    Examples:
        >>> import implicitly
        >>> from implicitly import problems
        >>> problem = problems.get("bratu-line")
        >>> start, bounds = problem.curve_start(9), (0, 4)
        >>> curve = implicitly.continuation(
        ...     problem.function, start, 0.0, bounds=bounds, unknown_bounds=(0, 3)
        ... )
        >>> abs(curve.folds[0].parameter.item() - problem.folds(9)[0]) < 1e-8
        True
    """

    tags = ("curve",)
    first_value: ClassVar[float] = 0.0

    @abstractmethod
    def folds(self, n: int | None = None) -> tuple[float, ...]:
        """The values of the parameter at the folds of the curve from `curve_start`, in its order."""

    def branch_points(self, n: int | None = None) -> tuple[float, ...]:
        """The values of the parameter at the first branch points of that curve, in its order."""
        self.size(n)
        return ()

    def curve_start(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> Tensor:
        """The solution at `first_value`, `(n,)`: zero."""
        return torch.zeros(self.size(n), dtype=dtype, device=device)
