"""Evaluation of an equation in float64, whatever the dtype of its layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..implicit.equations.exchange import Substitute


class InDouble(Substitute):
    """Mode in which torch functions see float64 in place of narrower types, and replaced tensors.

    Parameters, buffers and constants of narrower types are widened at their use, without copying or
    converting the function. An explicit conversion in the function (`x.float()`) still rounds.

    Examples:
        >>> import torch
        >>> w = torch.ones(2)
        >>> with InDouble((), ()):
        ...     y = torch.tanh(w * 3)
        >>> y.dtype
        torch.float64
    """

    def exchanged(self, tensor: Tensor) -> Tensor:
        replacement = super().exchanged(tensor)
        if replacement is not tensor:
            return replacement
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            return tensor.to(torch.float64)
        return tensor
