"""Recurrent network whose states of all times are solved for together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as affine

from .cell import Cell
from .checks import check_kind_of_depth, check_sizes
from .depth import Depth, by_scan
from .memory import Memory
from .model_options import ModelOptions
from .registry import register_model
from .sequence_model import SequenceModel
from .vocabulary import PlainVocabulary


@dataclass(frozen=True)
class RecurrentOptions(ModelOptions):
    """Options of an `EquilibriumRNN`.

    Attributes:
        vocabulary: Number of tokens.
        width: Features of a state and of an embedding.
        depth: `Equilibrium(...)`, or `WeightTied(depth)`, which remembers `depth` tokens, or
            `Stacked(depth)`; `None` for the equilibrium `by_scan`, to 1e-5.

    Raises:
        ValueError: An option is out of range.
        TypeError: `depth` is of another kind.

    Examples:
        >>> RecurrentOptions(vocabulary=10).states.solver.block
        32
    """

    vocabulary: int
    width: int = 32
    depth: Depth | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "vocabulary", "width")
        check_kind_of_depth(self.states)

    @property
    def states(self) -> Depth:
        """Depth of the states."""
        return by_scan(self.width, rtol=1e-5) if self.depth is None else self.depth


class GRUWeights(NamedTuple):
    """The weights that act on states."""

    weight: Tensor
    bias: Tensor


class GRUInputs(NamedTuple):
    """Arguments of the map besides states and weights.

    Attributes:
        injection: Added to the gates, `(batch, T, 3 · width)`.
        history: The state before the first, `(batch, 1, width)`.
    """

    injection: Tensor
    history: Tensor


class GRUCell(Cell):
    """`h′_t = (1 − u) n + u h_{t−1}`, a gated recurrent unit as a map of the states of all times.

        r = σ(U_r + W_r h_{t−1}),  u = σ(U_u + W_u h_{t−1}),  n = tanh(U_n + r W_n h_{t−1})

    with `U` the injection. Every time step depends on its predecessor, so `k` applications make the
    first `k` exact, and the equilibrium is the recurrence.

    Source: Cho et al. 2014.

    Examples:
        >>> cell, U = GRUCell(width=4), torch.randn(1, 5, 12)
        >>> inputs = cell.inputs(cell.weights(), None, U, torch.zeros(1, 1, 4), U[:, :0])
        >>> cell.map(torch.zeros(1, 5, 4), cell.weights(), inputs).shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state = width
        self.recurrent = nn.Linear(width, 3 * width)

    def weights(self) -> GRUWeights:
        return GRUWeights(self.recurrent.weight, self.recurrent.bias)

    def masks(self, injection: Tensor) -> None:
        return None

    def inputs(
        self,
        weights: GRUWeights,
        masks: None,
        injection: Tensor,
        history: Tensor,
        history_inputs: Tensor,
    ) -> GRUInputs:
        return GRUInputs(injection, history[:, -1:])

    def map(self, z: Tensor, weights: GRUWeights, inputs: GRUInputs) -> Tensor:
        before = torch.cat((inputs.history, z[:, :-1]), dim=1)
        x_r, x_u, x_n = inputs.injection.chunk(3, dim=2)
        h_r, h_u, h_n = affine(before, weights.weight, weights.bias).chunk(3, dim=2)
        u = (x_u + h_u).sigmoid()
        n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
        return (1 - u) * n + u * before


@register_model(RecurrentOptions)
class EquilibriumRNN(SequenceModel):
    """A gated recurrent language model whose states of all times are one equation.

    By default Newton's method with a scan over time solves it, and its adjoint. It takes a few evaluations of
    the cell on all times at once, instead of one for each time. The memory is the last state.

    Args:
        options: Sizes and depth.

    Source: Lim et al. 2024, arXiv:2309.12252; Cho et al. 2014 (the cell).

    Examples:
        >>> model = EquilibriumRNN(RecurrentOptions(vocabulary=10, width=8))
        >>> output = model(torch.zeros(2, 100, dtype=torch.long))
        >>> output.states.shape, output.converged, int(output.solutions[0].steps.max()) < 20
        (torch.Size([2, 100, 8]), True, True)
    """

    def __init__(self, options: RecurrentOptions) -> None:
        vocabulary = PlainVocabulary(options.vocabulary, options.width, scale=options.width**0.5)
        super().__init__(options.states, vocabulary, lambda: GRUCell(options.width))
        self.options = options
        self.injection = nn.Linear(options.width, 3 * options.width)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.vocabulary.embed(tokens)

    def inject(self, embedded: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        return self.injection(embedded), embedded[..., :0]

    def read_out(self, states: Tensor) -> Tensor:
        return states

    def empty_memory(self, batch: int) -> Memory:
        state = self.injection.bias.new_zeros(batch, 1, self.options.width)
        return Memory((state,) * len(self.cells), state[..., :0])

    def kept(self, keep: int | None) -> int:
        if keep not in (None, self.most_kept):
            raise ValueError(f"an EquilibriumRNN remembers one state: leave keep out, got {keep!r}")
        return self.most_kept

    @property
    def most_kept(self) -> int:
        return 1
