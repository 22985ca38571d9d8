"""Everything that a layer reaches, put back after a verification: attributes, caches, buffers, gradients,
arguments.

The same search that finds captured tensors finds modules, other objects, lists, dictionaries and sets.
Their content is noted before, one level of each, and restored in place. A cache outside of their reach (in
compiled code, or in `functools.lru_cache`) is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .reachable import reachable_objects

_DATA = 2**26
"""Larger tensors that require no gradients are data, which is not copied."""
Restore = Callable[[], None]


@contextmanager
def undisturbed(*roots: object) -> Iterator[None]:
    """Restore the state of all that is reachable from some objects, afterwards.

    Examples:
        >>> calls = []
        >>> with undisturbed(lambda x: calls.append(x)):
        ...     calls.append(1)
        >>> calls
        []
    """
    kept: list[Restore] = []
    for root in roots:
        kept += [restore for part in reachable_objects(root) if (restore := _noted(part))]
    try:
        yield
    finally:
        for restore in kept:
            restore()


def _noted(part: object) -> Restore | None:
    """How to put an object back; `None` for one without a state of its own."""
    if isinstance(part, Tensor) and is_lazy(part):
        return None  # The first call of a lazy module gives it a shape, which nothing takes back.
    if isinstance(part, Tensor):
        return _tensor(part) if part.requires_grad or part.numel() <= _DATA else None
    if isinstance(part, nn.Module):
        attributes = _mapping(vars(part))
        parts = [_mapping(held) for held in (part._parameters, part._buffers, part._modules)]

        def module() -> None:
            attributes()
            for restore in parts:
                restore()

        return module
    if isinstance(part, dict):
        return _mapping(part)
    if isinstance(part, (list, set)):
        return _container(part)
    if hasattr(part, "__dict__") and not isinstance(part, type):
        return _mapping(vars(part))
    return None


def _mapping(part: dict[Any, Any]) -> Restore:
    before = dict(part)

    def restore() -> None:
        if len(part) == len(before) and all(
            key in part and part[key] is value for key, value in before.items()
        ):
            return
        part.clear()
        part.update(before)

    return restore


def _container(part: list[Any] | set[Any]) -> Restore:
    before = list(part)

    def restore() -> None:
        if isinstance(part, list):
            part[:] = before
        elif part != set(before):
            part.clear()
            part.update(before)

    return restore


def _tensor(part: Tensor) -> Restore:
    value, gradient = part.detach().clone(), part.grad
    version = part._version

    def restore() -> None:
        part.grad = gradient
        if part._version != version or not part.requires_grad:
            with torch.no_grad():
                if part.shape == value.shape and not _equal(part, value):
                    part.data.copy_(value)

    return restore


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.layout != torch.strided or bool(((a == b) | ((a != a) & (b != b))).all())
