"""The one interface of all solvers: an update rule that the driver steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from .options import Options
from .problem import Problem


class State(Protocol):
    """What the driver reads of a solver's state.

    A state is a dataclass; every tensor in it has the systems of the batch along its first axis.
    Iterates are new tensors, never changed in place. A state may also have

    * `norm`, `(batch,)`: the norms of `residual`, if the solver knows them;
    * `failed`, `(batch,)`: `Status` codes (0: in order) of systems for which it can do no more.
    """

    @property
    def z(self) -> Tensor:
        """The iterate, `(batch, n)`."""
        ...

    @property
    def residual(self) -> Tensor:
        """The residual at `z`, `(batch, n)`."""
        ...


@dataclass(frozen=True)
class Solver(Options, ABC):
    """A frozen set of options together with an update rule.

    A solver writes `init` and `step`; the driver (`solve`) owns stopping, the best iterate, status
    and failure. Within a step nothing may depend on another system of the batch.

    Class attributes:
        linear_only: The solver needs a linear equation.
        confirm_residual: The state's residual comes from a recursion, which rounding may take away
            from the truth; the driver confirms convergence with an evaluation.
        lazy_iterate: `state.norm` never increases and `state.z` is formed each time it is read
            (GMRES); the driver reads `z` only when a system ends.
        default_max_steps: The limit on steps where `Stopping.max_steps` is `None`.
    """

    linear_only: ClassVar[bool] = False
    confirm_residual: ClassVar[bool] = False
    lazy_iterate: ClassVar[bool] = False
    default_max_steps: ClassVar[int] = 200

    @property
    def keeps_batch(self) -> bool:
        """Whether options refer to systems by their place, so that none may be dropped."""
        return False

    @abstractmethod
    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> Any:
        """The state at the start `z`, whose residual is `residual`; both `(batch, n)`."""

    @abstractmethod
    def step(self, problem: Problem, state: Any) -> Any:
        """The state one step on. Tensors of the old state may be reused."""
