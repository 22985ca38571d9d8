"""Steps of a solver as operations of a graph: no branch of Python, and every counter a tensor."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..interface.problem import Problem
from ..interface.solver import Solver
from ..interface.traced import Part


@dataclass(frozen=True)
class Method(ABC):
    """The steps of `solver` in a form that a loop of a graph can repeat.

    A state is a dataclass of tensors, like that of any solver, and `None` where it has none. Its `z`,
    `residual`, `norm` and `end_status` are read by the loop as the driver reads them.

    Attributes:
        solver: The solver.
        unrolled: Small equations are eliminated entry by entry, hundreds of operations that a compiler makes
            one loop of; else by one call of a library, which is traced faster.

    Class attributes:
        part: The part of an equation that the steps evaluate.
        evaluations: Evaluations in a step.
        lazy: `norm` never increases, and the iterate is formed once, by `finish`.
    """

    solver: Any
    unrolled: bool = True
    part: ClassVar[Part] = "function"
    evaluations: ClassVar[int] = 1
    lazy: ClassVar[bool] = False

    def cycle(self, n: int) -> int | None:
        """The most steps of one run for `n` unknowns; `None` for no limit of its own."""
        return None

    @abstractmethod
    def begin(self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor) -> Any:
        """The state at the start; `length`, `(batch, 1)`, makes a step of a residual."""

    @abstractmethod
    def advance(self, problem: Problem, state: Any) -> Any:
        """The state one step on."""

    def finish(self, state: Any) -> Tensor:
        """The iterate of each system at the end."""
        z: Tensor = state.z
        return z


@dataclass(frozen=True)
class AsItIs(Method):
    """A solver whose own steps are such operations already."""

    def begin(self, problem: Problem, z: Tensor, residual: Tensor, length: Tensor) -> Any:
        solver: Solver = self.solver
        return solver.init(problem, z, residual)

    def advance(self, problem: Problem, state: Any) -> Any:
        solver: Solver = self.solver
        return solver.step(problem, state)


@dataclass(frozen=True)
class Linear(AsItIs):
    """The same for a solver of linear equations."""

    part: ClassVar[Part] = "operator"


@dataclass(frozen=True)
class TwoProducts(Linear):
    """The same for one that makes two products in a step."""

    evaluations: ClassVar[int] = 2


def tensors_of(state: Any) -> tuple[Tensor, ...]:
    """The tensors of a state, in the order of its fields."""
    values = (getattr(state, field.name) for field in dataclasses.fields(state))
    return tuple(value for value in values if isinstance(value, Tensor))


def with_tensors(state: Any, tensors: Sequence[Tensor]) -> Any:
    """A state like `state`, with these tensors."""
    left = iter(tensors)
    fields = dataclasses.fields(state)
    values = {field.name: getattr(state, field.name) for field in fields}
    found = {n: next(left) if isinstance(v, Tensor) else v for n, v in values.items()}
    return type(state)(**found)
