"""Evaluation of a function in float64, whatever the dtype that it computes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from ..implicit.equations.exchange import Substitute
from .real import wide_dtype, widened


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
        return widened(tensor) if replacement is tensor else replacement


_DERIVATIVES = (torch.autograd.grad, torch.autograd.backward)
_CONVERSIONS = ("float", "half", "bfloat16")
_DRAWS = ("randn_like", "rand_like", "normal", "randn", "rand", "bernoulli")
_DRAWS_IN_PLACE = (
    "normal_", "uniform_", "exponential_", "log_normal_", "cauchy_", "geometric_",
)  # fmt: skip


class DoubleThroughout(InDouble):
    """The same for the whole of a layer: conversions and autocast inside of it do not round either.

    Random numbers are drawn in the layer's own dtype, since generators give others in float64.

    Args:
        originals: Tensors to be replaced.
        replacements: Tensors in their place.
        own: The dtype in which the layer draws.

    Examples:
        >>> import torch
        >>> with DoubleThroughout((), (), torch.float32):
        ...     y = torch.ones(2, dtype=torch.float64).float()
        >>> y.dtype
        torch.float64
    """

    def __init__(
        self, originals: tuple[Tensor, ...], replacements: tuple[Tensor, ...], own: torch.dtype
    ) -> None:
        super().__init__(originals, replacements)
        self._own = own

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _DERIVATIVES:  # They name tensors, and compute nothing with them.
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                return self._called(func, name, args, kwargs or {})
        return self._called(func, name, args, kwargs or {})

    def _called(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if name in _DRAWS:
            return tree_map_only(
                Tensor, widened, func(*self._narrowed(args), **self._narrowed(kwargs))
            )
        keep = name == "view"
        args = tuple(self._wide(arg, keep) for arg in args)
        if kwargs:
            kwargs = {key: self._wide(arg, keep) for key, arg in kwargs.items()}
        if name in _DRAWS_IN_PLACE:
            into = torch.empty_like(args[0], dtype=self._own)
            return args[0].copy_(func(into, *args[1:], **kwargs))
        if name in _CONVERSIONS and args[0].is_floating_point():
            return args[0]
        found = func(*args, **kwargs)
        return tree_map_only(Tensor, widened, found) if _is_factory(found, args) else found

    def _wide(self, value: Any, keep: bool) -> Any:
        """An argument with tensors exchanged, and wide dtypes unless they are to be kept."""
        if isinstance(value, Tensor):
            return self.exchanged(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, torch.dtype):
            return value if keep else wide_dtype(value)
        return tree_map(lambda leaf: self._wide(leaf, keep), value) if _nested(value) else value

    def _narrowed(self, value: Any) -> Any:
        return tree_map_only(
            Tensor, lambda t: t.to(self._own) if t.is_floating_point() else t, value
        )


def _nested(value: Any) -> bool:
    return isinstance(value, (tuple, list, dict))


def _is_factory(found: Any, args: tuple[Any, ...]) -> bool:
    """True for a tensor made of numbers, which later calls may write into."""
    return isinstance(found, Tensor) and not any(isinstance(arg, Tensor) for arg in args)
