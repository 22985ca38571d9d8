"""Cell of the DEQ-Transformer: one layer as a map of its states."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.nn.functional import linear as affine

from ..cell import Cell
from ..dropout import apply_mask, draw_mask
from ..weight_norm import linear, weight_of
from .attention import either, lost_tokens, relative_attention, sinusoids, visible, without
from .options import TransformerOptions


class TransformerWeights(NamedTuple):
    """Applied weights of a cell: normalised, with one graph for a whole forward pass."""

    qkv: Tensor
    position: Tensor
    content_bias: Tensor
    position_bias: Tensor
    out: Tensor
    out_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    contract: Tensor
    contract_bias: Tensor


class TransformerMasks(NamedTuple):
    """Dropout masks of one forward pass; `None` without dropout."""

    positions: Tensor | None
    attention: Tensor | None
    inner: Tensor | None
    feedforward: Tensor | None


class TransformerInputs(NamedTuple):
    """Arguments of a cell's map besides states and weights.

    Attributes:
        injection: Added to queries, keys and values, `(batch, T, 3 · heads · head_width)`.
        memory_keys: Keys of the memory, `(batch, heads, M, head_width)`.
        memory_values: Values of the memory.
        positions: `(heads, M + T, head_width)`.
        seen: `(T, M + T)`, boolean.
        lost: The tokens with an injection that is not finite, `(batch, T)`; `None` if there are none.
        attention_mask: Dropout of attention weights, `(batch, heads, T, M + T)`.
        masks: All other dropout masks.
    """

    injection: Tensor
    memory_keys: Tensor
    memory_values: Tensor
    positions: Tensor
    seen: Tensor
    lost: Tensor | None
    attention_mask: Tensor | None
    masks: TransformerMasks


class TransformerCell(Cell):
    """`f(z; x)` of the DEQ-Transformer, with `U` the injection and `LN` normalising without parameters.

    With the memory before the states, post-norm:

        q, k, v = W_qkv [memory; z] + U
        z₁ = LN(z + drop(W_o attention(q, k, v)))
        z′ = LN(z₁ + drop(W₂ drop(relu(W₁ z₁))))

    and pre-norm, whose second residual carries the normalised state as in the authors' code:

        q, k, v = W_qkv LN([memory; z]) + U
        z₁ = z + drop(W_o attention(q, k, v))
        z′ = LN(z₁) + drop(W₂ drop(relu(W₁ LN(z₁))))

    Keys and values of the memory do not change in a solve and are computed once. A token whose state or
    injection is not finite makes those that see it NaN, and changes nothing of the others.

    Source: Bai, Kolter & Koltun 2019, section 4 and their code (locuslab/deq); Dai et al. 2019.

    Examples:
        >>> cell = TransformerCell(TransformerOptions(vocabulary=10, width=8, heads=2))
        >>> weights, U = cell.weights(), torch.randn(1, 5, 24)
        >>> history = torch.zeros(1, 0, 8), torch.zeros(1, 0, 24)
        >>> inputs = cell.inputs(weights, cell.masks(U), U, *history)
        >>> cell.map(torch.zeros(1, 5, 8), weights, inputs).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.options, self.state = options, options.width
        d, features = options.width, options.heads * options.per_head

        def make(inputs: int, outputs: int, bias: bool, deviation: float) -> nn.Linear:
            return linear(
                inputs,
                outputs,
                bias=bias,
                normalised=options.weight_norm,
                deviation=deviation if options.initial == "normal" else None,
            )

        spread = options.spread
        wide = spread if options.deviation is not None else options.inside**-0.5
        self.qkv = make(d, 3 * features, False, spread)
        self.position = make(d, features, False, spread)
        self.out = make(features, d, True, spread)
        self.expand = make(d, options.inside, True, spread)
        self.contract = make(options.inside, d, True, wide)
        shape = (options.heads, options.per_head)
        self.content_bias = nn.Parameter(nn.init.uniform_(torch.empty(shape), -0.05, 0.05))
        self.position_bias = nn.Parameter(nn.init.uniform_(torch.empty(shape), -0.05, 0.05))

    def weights(self) -> TransformerWeights:
        """The weights of one forward pass."""
        return TransformerWeights(
            weight_of(self.qkv),
            weight_of(self.position),
            self.content_bias,
            self.position_bias,
            weight_of(self.out),
            self.out.bias,
            weight_of(self.expand),
            self.expand.bias,
            weight_of(self.contract),
            self.contract.bias,
        )

    def masks(self, injection: Tensor) -> TransformerMasks:
        """Masks of one forward pass."""
        o, batch = self.options, len(injection)

        def draw(*shape: int) -> Tensor | None:
            return draw_mask(shape, o.dropout, self.content_bias, self.training)

        return TransformerMasks(
            positions=draw(o.width),
            attention=draw(batch, 1, o.width),
            inner=draw(batch, 1, o.inside),
            feedforward=draw(batch, 1, o.width),
        )

    def inputs(
        self,
        weights: TransformerWeights,
        masks: TransformerMasks,
        injection: Tensor,
        history: Tensor,
        history_inputs: Tensor,
    ) -> TransformerInputs:
        """The arguments that stay constant in a solve.

        Args:
            weights: Weights of this pass.
            masks: Masks of this pass.
            injection: `U` at the states' positions, `(batch, T, 3 · heads · head_width)`.
            history: States before them, `(batch, M, width)`.
            history_inputs: `U` at these, `(batch, M, 3 · heads · head_width)`.
        """
        o = self.options
        batch, length = injection.shape[:2]
        keys = history.shape[1] + length
        sines = apply_mask(sinusoids(keys, o.width, history), masks.positions)
        positions = affine(sines, weights.position)
        _, memory_keys, memory_values = self._heads(
            affine(self._before(history), weights.qkv) + history_inputs
        )
        return TransformerInputs(
            injection,
            memory_keys,
            memory_values,
            positions.reshape(keys, o.heads, o.per_head).transpose(0, 1),
            visible(length, keys, o.context, injection.device),
            lost_tokens(injection),
            draw_mask(
                (batch, o.heads, length, keys),
                o.attention_dropout,
                self.content_bias,
                self.training,
            ),
            masks,
        )

    def map(self, z: Tensor, weights: TransformerWeights, inputs: TransformerInputs) -> Tensor:
        """`f(z; x)`, `(batch, T, width)`; a function of its arguments alone."""
        masks, lost = inputs.masks, either(lost_tokens(z), inputs.lost)
        known = self._before(without(lost, z))
        q, k, v = self._heads(affine(known, weights.qkv) + without(lost, inputs.injection))
        gathered = relative_attention(
            q,
            torch.cat((inputs.memory_keys, k), dim=2),
            torch.cat((inputs.memory_values, v), dim=2),
            inputs.positions,
            weights.content_bias,
            weights.position_bias,
            inputs.seen,
            inputs.attention_mask,
        )
        attended = affine(gathered.transpose(1, 2).flatten(2), weights.out, weights.out_bias)
        if lost is not None:
            reached = (inputs.seen[:, -z.shape[1] :] & lost.unsqueeze(1)).any(dim=2, keepdim=True)
            attended = attended.masked_fill(reached, torch.nan)
        z1 = self._before(self._after(z + apply_mask(attended, masks.attention)))
        inner = affine(z1, weights.expand, weights.expand_bias).relu()
        moved = affine(apply_mask(inner, masks.inner), weights.contract, weights.contract_bias)
        return self._after(z1 + apply_mask(moved, masks.feedforward))

    def _before(self, x: Tensor) -> Tensor:
        return x if self.options.norm == "post" else layer_norm(x, x.shape[-1:])

    def _after(self, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:]) if self.options.norm == "post" else x

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `(batch, heads, T, head_width)`."""
        batch, length, _ = qkv.shape
        parts = qkv.reshape(batch, length, 3, self.options.heads, self.options.per_head)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return q, k, v
