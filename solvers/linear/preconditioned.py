"""Base class of Krylov methods with a preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ...options.options import check_callable
from ..interface.solver import Solver, Transpose


@dataclass(frozen=True)
class Preconditioned(Solver):
    """A solver with the option `preconditioner`, `v ↦ M⁻¹v`, or `None` for none."""

    preconditioner: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_callable("preconditioner", self.preconditioner)

    def for_derivative(self, transpose: Transpose | None) -> Solver | None:
        if self.preconditioner is None or transpose is None:
            return None if self.preconditioner is None else self
        turned = transpose(self.preconditioner)
        return None if turned is None else replace(self, preconditioner=turned)

    @property
    def keeps_batch(self) -> bool:
        # A preconditioner may hold numbers of each system.
        return self.preconditioner is not None

    def _precondition(self, v: Tensor) -> Tensor:
        return v if self.preconditioner is None else self.preconditioner(v)
