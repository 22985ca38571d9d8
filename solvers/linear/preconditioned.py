"""Base class of Krylov methods with a preconditioner."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...options.options import check_callable
from ..interface.solver import Solver


class Preconditioned(Solver):
    """A solver with the option `preconditioner`, `v ↦ M⁻¹v`, or `None` for none."""

    preconditioner: Callable[[Tensor], Tensor] | None

    def __post_init__(self) -> None:
        check_callable("preconditioner", self.preconditioner)

    @property
    def keeps_batch(self) -> bool:
        # A preconditioner may hold numbers of each system.
        return self.preconditioner is not None

    def _precondition(self, v: Tensor) -> Tensor:
        return v if self.preconditioner is None else self.preconditioner(v)
