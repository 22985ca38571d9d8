"""An equation evaluated in float64, whatever dtype its layer is written in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..implicit.equations.capture import Substitute


class InDouble(Substitute):
    """While active, torch functions see float64 in place of narrower types, and given replacements.

    Parameters, buffers and constants of narrower types are widened where they are used, so that a
    function need not be copied or converted. What the function itself rounds (`x.float()`) stays
    rounded.

    Examples:
        >>> import torch
        >>> w = torch.ones(2)
        >>> with InDouble((), ()):
        ...     y = torch.tanh(w * 3)
        >>> y.dtype
        torch.float64
    """

    def _replace(self, tensor: Tensor) -> Tensor:
        replacement = super()._replace(tensor)
        if replacement is not tensor:
            return replacement
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            return tensor.to(torch.float64)
        return tensor
