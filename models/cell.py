"""Cell: one layer of a sequence model as a map of its states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn


class Cell(nn.Module, ABC):
    """A layer as a map of its states.

    Weights and masks are formed once in a forward pass and passed to `map` as arguments. So every iteration
    and its adjoint use the same ones, and parameters get their gradient once.

    Attributes:
        state: Features of a state.
    """

    state: int

    @abstractmethod
    def weights(self) -> Any:
        """The applied weights, a pytree of tensors."""

    @abstractmethod
    def masks(self, injection: Tensor) -> Any:
        """Dropout masks for a pass over `injection`, `(batch, T, features)`."""

    @abstractmethod
    def inputs(
        self, weights: Any, masks: Any, injection: Tensor, history: Tensor, history_inputs: Tensor
    ) -> Any:
        """The other arguments of `map`, at positions after those of the history."""

    @abstractmethod
    def map(self, z: Tensor, weights: Any, inputs: Any) -> Tensor:
        """`f(z; x)`, `(batch, T, state)`, a function of its arguments alone."""


class Pass(NamedTuple):
    """A cell with its weights and masks of one forward pass."""

    cell: Cell
    weights: Any
    masks: Any

    def inputs(self, injection: Tensor, history: Tensor, history_inputs: Tensor) -> Any:
        return self.cell.inputs(self.weights, self.masks, injection, history, history_inputs)
