"""Minimum with constraints: its functions, standard start and known solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...implicit import constrained_minimum
from ...options.options import Options
from ...solvers import Solution

Device = torch.device | str | None
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ConstrainedProblem(Options):
    """An objective with equations, inequalities and bounds.

    Attributes:
        name: Name in the registry.
        source: Author, year and number.
        objective: The objective at unknowns `(..., n)`, along the last axis.
        first: The standard start.
        solution: The known minimum.
        value: The objective there.
        equalities: `c`, for `c(z) = 0`, `(..., p)`; `None` for none.
        inequalities: `g`, for `g(z) ≤ 0`, `(..., m)`; `None` for none.
        lower: Lower bounds; `None` for none.
        upper: Upper bounds; `None` for none.
        digits: Correct digits of the solution behind the point, 15 if it is exact.

    Examples:
        >>> from implicitly.problems import constrained
        >>> problem = constrained.get("hock-schittkowski-43")
        >>> [round(entry, 6) + 0.0 for entry in problem.solve().value.z.tolist()]
        [0.0, 1.0, 2.0, -1.0]
    """

    name: str
    source: str
    objective: Function
    first: tuple[float, ...]
    solution: tuple[float, ...]
    value: float
    equalities: Function | None = None
    inequalities: Function | None = None
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    digits: int = 15

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return len(self.first)

    def start(self, dtype: torch.dtype = torch.float64, device: Device = None) -> Tensor:
        """The standard start, `(n,)`."""
        return torch.tensor(self.first, dtype=dtype, device=device)

    def known(self, dtype: torch.dtype = torch.float64, device: Device = None) -> Tensor:
        """The known minimum, `(n,)`."""
        return torch.tensor(self.solution, dtype=dtype, device=device)

    def bounds(
        self, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor | None, Tensor | None] | None:
        """The lower and upper bounds, `(n,)` each; `None` where there are none."""
        if self.lower is None and self.upper is None:
            return None
        lower, upper = (
            None if bound is None else torch.tensor(bound, dtype=dtype, device=device)
            for bound in (self.lower, self.upper)
        )
        return lower, upper

    def solve(self, z0: Tensor | None = None, **options: Any) -> Solution:
        """Solve it by `constrained_minimum`, from the standard start unless another is given."""
        z0 = self.start() if z0 is None else z0
        return constrained_minimum(
            self.objective, z0, equalities=self.equalities, inequalities=self.inequalities,
            bounds=self.bounds(z0.dtype, z0.device), **options,
        )  # fmt: skip
