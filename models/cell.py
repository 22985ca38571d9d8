"""Cell: one layer of a sequence model as a map of its states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn


class Cell(nn.Module, ABC):
    """A layer as a map of its states.

    Its weights and masks are formed once in a forward pass and handed to `map` as arguments, so that
    every iteration and its adjoint see the same, and parameters get their gradient once.

    Attributes:
        state: Features of a state.
    """

    state: int

    @abstractmethod
    def weights(self) -> Any:
        """The weights as they are applied: a pytree of tensors."""

    @abstractmethod
    def masks(self, injection: Tensor) -> Any:
        """Dropout masks for a pass over `injection`, `(batch, T, features)`."""

    @abstractmethod
    def inputs(
        self, weights: Any, masks: Any, injection: Tensor, history: Tensor, history_inputs: Tensor
    ) -> Any:
        """All else that `map` depends on, at positions after those of the history."""

    @abstractmethod
    def map(self, z: Tensor, weights: Any, inputs: Any) -> Tensor:
        """`f(z; x)`, `(batch, T, state)`, a function of its arguments alone."""


class Pass(NamedTuple):
    """A cell with what is drawn and formed once in a forward pass."""

    cell: Cell
    weights: Any
    masks: Any

    def inputs(self, injection: Tensor, history: Tensor, history_inputs: Tensor) -> Any:
        return self.cell.inputs(self.weights, self.masks, injection, history, history_inputs)
