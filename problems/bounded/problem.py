"""Problem with bounds on its unknowns: its function, standard start, bounds and known solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...implicit import complementarity, least_squares, minimise, root
from ...options.options import Options, one_of
from ...solvers import Solution

Device = torch.device | str | None
Kind = Literal["root", "least_squares", "minimise", "complementarity"]
_CALLS: dict[str, Callable[..., Solution]] = {
    "root": root,
    "least_squares": least_squares,
    "minimise": minimise,
    "complementarity": complementarity,
}


@dataclass(frozen=True)
class BoundedProblem(Options):
    """An equation, an objective or a complementarity problem with bounds.

    Attributes:
        name: Name in the registry.
        kind: The call that solves it.
        source: Author and year, or the field that it comes from.
        function: `F`, residuals or the objective at unknowns `(..., n)`, along the last axis.
        first: The standard start, between the bounds.
        lower: Lower bounds.
        upper: Upper bounds.
        solution: The solution, rounded from more digits; found without any solver of the package.

    Raises:
        ValueError: There is no such kind.

    Examples:
        >>> from implicitly.problems import bounded
        >>> problem = bounded.get("hock-schittkowski-4")
        >>> problem.solve().value.round(decimals=6).tolist(), problem.solution
        ([1.0, 0.0], (1.0, 0.0))
    """

    name: str
    kind: Kind
    source: str
    function: Callable[[Tensor], Tensor]
    first: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    solution: tuple[float, ...]

    def __post_init__(self) -> None:
        one_of("kind", self.kind, tuple(_CALLS))

    @property
    def n(self) -> int:
        """The number of unknowns."""
        return len(self.first)

    def start(self, dtype: torch.dtype = torch.float64, device: Device = None) -> Tensor:
        """The standard start, `(n,)`."""
        return torch.tensor(self.first, dtype=dtype, device=device)

    def bounds(
        self, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor, Tensor]:
        """The lower and upper bounds, `(n,)` each."""
        lower = torch.tensor(self.lower, dtype=dtype, device=device)
        return lower, torch.tensor(self.upper, dtype=dtype, device=device)

    def known(self, dtype: torch.dtype = torch.float64, device: Device = None) -> Tensor:
        """The known solution, `(n,)`."""
        return torch.tensor(self.solution, dtype=dtype, device=device)

    def solve(self, z0: Tensor | None = None, **options: Any) -> Solution:
        """Solve it by the call of its kind, from the standard start unless another is given."""
        z0 = self.start() if z0 is None else z0
        bounds = self.bounds(z0.dtype, z0.device)
        return _CALLS[self.kind](self.function, z0, bounds=bounds, **options)
