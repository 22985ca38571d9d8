"""Values of tensors inside of transforms: under `vmap` a tensor has none that Python can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def observe(observer: Callable[[Tensor], None], tensor: Tensor) -> None:
    """Call `observer` with the plain tensor, mapped axes in front, before this returns."""
    _Observed.apply(observer, tensor)


class _Observed(torch.autograd.Function):
    @staticmethod
    def forward(observer: Callable[[Tensor], None], tensor: Tensor) -> Tensor:
        observer(tensor)
        return tensor.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        observer: Callable[[Tensor], None],
        tensor: Tensor,
    ) -> tuple[Tensor, int | None]:
        dim = in_dims[1]
        moved = tensor if dim is None else tensor.movedim(dim, 0)
        return _Observed.apply(observer, moved), None if dim is None else 0
