"""Rounding of a layer's values and gradients, measured: both again at inputs moved by one rounding.

Inputs and cotangents are multiplied by `1 + ε ξ` with random signs `ξ` and the machine precision `ε` of the
layer, and so are the results of its operations. Exact values and gradients change by their condition numbers
times `ε`, and the errors of rounding inside of the layer are drawn anew. So the changes show the size of
terms that cancel: a gradient that is zero but for rounding changes by as much as itself, and one that comes
from a saturated value, `1 − y²` of a tangent, by the rounding of that value (Vignes 1993; Parker 1997, Monte
Carlo arithmetic).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .real import real, size_of
from .subject import LayerError, Tape

_SAMPLES = 2
# Operations that choose or copy entries round nothing, and their derivatives may ask which entry was chosen.
_EXACT = frozenset(
    (
        "max", "min", "amax", "amin", "aminmax", "maximum", "minimum", "fmax", "fmin", "mode", "kthvalue",
        "sort", "topk", "cummax", "cummin", "relu", "threshold", "clamp", "clamp_min", "clamp_max",
        "hardtanh", "abs", "neg", "sign", "round", "floor", "ceil", "trunc", "max_pool2d_with_indices",
        "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d", "fractional_max_pool2d",
        "gather", "index", "index_select", "take", "where", "masked_select", "masked_fill", "scatter",
        "embedding", "_unsafe_index", "cat", "stack", "clone", "_to_copy", "flip", "roll", "repeat",
        "constant_pad_nd", "slice_scatter", "select_scatter", "diagonal_scatter", "zeros", "ones", "full",
        "arange", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
        "scalar_tensor", "lift_fresh", "bernoulli",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Rounding:
    """Changes by one rounding.

    Attributes:
        values: The relative change of each output, the largest of the samples.
        gradients: The change of each gradient, entry by entry: `gradients[k][o][s]`.
    """

    values: tuple[float, ...]
    gradients: tuple[tuple[tuple[Tensor, ...], ...], ...]

    @staticmethod
    def measured(
        tape_at: Callable[[Sequence[Tensor]], Tape],
        values: Sequence[Tensor],
        tape: Tape,
        cotangents: Sequence[Sequence[Tensor]],
        gradients: Sequence[Sequence[Sequence[Tensor]]],
        eps: float,
        generator: torch.Generator,
    ) -> Rounding:
        """Rounding from further calls; zero for samples whose call fails."""
        changes = [[[torch.zeros_like(g) for g in row] for row in rows] for rows in gradients]
        sizes = [0.0] * len(tape.outputs)
        for _ in range(_SAMPLES):
            try:
                there = _called(
                    tape_at, [rounded(v, eps, generator) for v in values], eps, generator
                )
                for o, (a, b) in enumerate(zip(tape.values, there.values, strict=True)):
                    size = size_of(a)
                    if a.shape == b.shape and size > 0:
                        sizes[o] = max(sizes[o], float((real(a) - real(b)).norm()) / size)
                for k, row in enumerate(cotangents):
                    for o, w in enumerate(row):
                        only = [
                            rounded(w, eps, generator) if i == o else None for i in range(len(row))
                        ]
                        for s, g in enumerate(there.pullback(only)):
                            own = gradients[k][o][s]
                            change = (real(g) - own).abs().nan_to_num(torch.inf)
                            change[~torch.isfinite(own)] = 0
                            torch.maximum(changes[k][o][s], change, out=changes[k][o][s])
            except LayerError:
                continue
        return Rounding(tuple(sizes), tuple(tuple(tuple(row) for row in rows) for rows in changes))


def _called(
    tape_at: Callable[[Sequence[Tensor]], Tape],
    values: Sequence[Tensor],
    eps: float,
    generator: torch.Generator,
) -> Tape:
    """A call in which the results of operations are rounded anew, or a plain one where that fails."""
    try:
        with RoundedOperations(eps, generator):
            return tape_at(values)
    except LayerError:  # Code that modes do not reach, such as compiled code.
        return tape_at(values)


class RoundedOperations(TorchDispatchMode):
    """Moves the results of operations by one rounding; autograd saves the moved ones."""

    def __init__(self, eps: float, generator: torch.Generator) -> None:
        super().__init__()
        self._eps, self._generator = eps, generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # Views and results that are written in place are not new.
        if any(part.alias_info is not None for part in func._schema.returns):
            return result
        if func.overloadpacket.__name__ in _EXACT:
            return result
        return tree_map_only(Tensor, self._moved, result)

    def _moved(self, value: Tensor) -> Tensor:
        inexact = value.is_floating_point() or value.is_complex()
        if type(value) is not Tensor or not inexact or value.layout != torch.strided:
            return value
        if (
            torch.finfo(value.dtype).eps > self._eps
            or value.requires_grad
            or value._is_zerotensor()
        ):
            return value
        return rounded(value, self._eps, self._generator)


def rounded(value: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Each entry moved by one rounding up or down, detached.

    Examples:
        >>> rounded(torch.ones(1), 2**-23, torch.Generator()).item() - 1 in (2**-23, -(2**-23), -(2**-24))
        True
    """
    signs = 2 * torch.randint(0, 2, value.shape, generator=generator) - 1
    step = eps * signs.to(value.device, torch.float64)
    return (value * (1 + step.to(value.real.dtype))).detach()
