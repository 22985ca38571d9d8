"""An equation evaluated in float64, whatever dtype its layer is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


class InDouble(TorchFunctionMode):
    """While active, torch functions see float64 in place of narrower types, and given replacements.

    Parameters, buffers and constants of narrower types are widened where they are used, so that a
    function need not be copied or converted. What the function itself rounds (`x.float()`) stays
    rounded.

    Example:
        >>> import torch
        >>> w = torch.ones(2)
        >>> with InDouble({}):
        ...     y = torch.tanh(w * 3)
        >>> y.dtype
        torch.float64
    """

    def __init__(self, replacements: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, self._wide, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _wide(self, tensor: Tensor) -> Tensor:
        replacement = self._replacements.get(id(tensor))
        if replacement is not None:
            return replacement
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            return tensor.to(torch.float64)
        return tensor
