"""Cell of TrellisNet: one layer as a map of its states."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear as affine

from ..cell import Cell
from ..dropout import apply_mask, draw_mask
from ..weight_norm import linear, weight_of
from .options import TrellisNetOptions


class TrellisNetWeights(NamedTuple):
    """Applied weights of a cell, with one graph for a whole forward pass."""

    convolution: Tensor
    bias: Tensor


class TrellisNetInputs(NamedTuple):
    """Arguments of a cell's map besides states and weights.

    Attributes:
        injection: Added to each of the gates, four times `(batch, T, width)`.
        history: The states of the `kernel − 1` time steps before, `(batch, kernel − 1, 2 · width)`.
        mask: Dropout of `h`, `(batch, 1, width)`.
    """

    injection: tuple[Tensor, ...]
    history: Tensor
    mask: Tensor | None


def windows(x: Tensor, kernel: int) -> Tensor:
    """Features of `kernel` consecutive time steps at each time step, the oldest first.

    `(batch, T + kernel − 1, n)` becomes `(batch, T, kernel · n)`: a causal convolution is a linear map
    of it.

    Examples:
        >>> windows(torch.tensor([[[1.0], [2.0], [3.0]]]), 2)
        tensor([[[1., 2.],
                 [2., 3.]]])
    """
    length = x.shape[1] - kernel + 1
    return torch.cat([x[:, tap : tap + length] for tap in range(kernel)], dim=2)


class TrellisNetCell(Cell):
    """`f(z; x)` of TrellisNet on states `z = [h; c]`, with `U` the injection.

        i, o, g, f = U + W * drop([history; h])
        c′_t = σ(f_t) c_{t−1} + σ(i_t) tanh(g_t)
        h′_t = σ(o_t) tanh(c′_t)

    where `*` is a causal convolution with `kernel` taps, and `c_{t−1}` belongs to the argument `z`.

    Source: Bai, Kolter & Koltun 2019, section 4, and their code (locuslab/deq); TrellisNet: the same
    authors, ICLR 2019.

    Examples:
        >>> cell = TrellisNetCell(TrellisNetOptions(vocabulary=10, output=2, hidden=3))
        >>> weights, U = cell.weights(), torch.randn(1, 5, 20)
        >>> inputs = cell.inputs(weights, cell.masks(U), U, torch.zeros(1, 1, 10), U[:, :0])
        >>> cell.map(torch.zeros(1, 5, 10), weights, inputs).shape
        torch.Size([1, 5, 10])
    """

    def __init__(self, options: TrellisNetOptions) -> None:
        super().__init__()
        self.options, self.state = options, 2 * options.width
        self.convolution = linear(
            options.kernel * options.width,
            4 * options.width,
            bias=True,
            normalised=options.weight_norm,
            deviation=options.deviation,
        )

    def weights(self) -> TrellisNetWeights:
        """The weights of one forward pass."""
        weight = weight_of(self.convolution, self.options.weight_dropout, self.training)
        return TrellisNetWeights(weight, self.convolution.bias)

    def masks(self, injection: Tensor) -> Tensor | None:
        """The mask of one forward pass."""
        shape = (len(injection), 1, self.options.width)
        return draw_mask(shape, self.options.hidden_dropout, self.convolution.bias, self.training)

    def inputs(
        self,
        weights: TrellisNetWeights,
        masks: Tensor | None,
        injection: Tensor,
        history: Tensor,
        history_inputs: Tensor,
    ) -> TrellisNetInputs:
        """The arguments that stay constant in a solve.

        Args:
            weights: Weights of this pass.
            masks: Masks of this pass.
            injection: `U`, `(batch, T, 4 · width)`.
            history: States before, `(batch, kernel − 1 or more, 2 · width)`.
            history_inputs: Unused, since `U` already depends on them.
        """
        gates = injection.chunk(4, dim=2)
        return TrellisNetInputs(gates, history[:, -(self.options.kernel - 1) :], masks)

    def map(self, z: Tensor, weights: TrellisNetWeights, inputs: TrellisNetInputs) -> Tensor:
        """`f(z; x)`, `(batch, T, 2 · width)`; a function of its arguments alone."""
        width, kernel = self.options.width, self.options.kernel
        h = torch.cat((inputs.history[..., :width], z[..., :width]), dim=1)
        c = torch.cat((inputs.history[:, -1:, width:], z[:, :-1, width:]), dim=1)
        seen = windows(apply_mask(h, inputs.mask), kernel)
        # Gate by gate, which holds a quarter of what all at once would beside the gates' values.
        i, o, g, f = (
            partial(_gate, seen, *parts)
            for parts in zip(
                inputs.injection,
                weights.convolution.chunk(4),
                weights.bias.chunk(4),
                strict=True,
            )
        )
        c = f().sigmoid() * c + i().sigmoid() * g().tanh()
        return torch.cat((o().sigmoid() * c.tanh(), c), dim=2)


def _gate(seen: Tensor, injection: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return injection + affine(seen, weight, bias)
