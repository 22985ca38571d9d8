"""Dataclass instances as pytrees: their fields are arguments like any other."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import (
    Context,
    TreeSpec,
    register_pytree_node,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)


class _Fields:
    """The fields of a dataclass instance, as a node of a pytree."""

    def __init__(self, instance: Any, names: tuple[str, ...], values: list[Any]) -> None:
        self.instance, self.names, self.values = instance, names, values


def _flatten(fields: _Fields) -> tuple[list[Any], Context]:
    return fields.values, (fields.instance, fields.names)


def _unflatten(values: Any, context: Context) -> Any:
    instance, names = context
    filled = copy.copy(instance)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(filled, name, value)  # The class may be frozen.
    return filled


register_pytree_node(_Fields, _flatten, _unflatten)


def opened(tree: Any) -> Any:
    """`tree` with a node in place of each dataclass instance that holds a tensor.

    `tree_unflatten` gives instances again: copies with other fields, made without their `__init__`.
    """
    return tree_unflatten(*opened_flat(tree))


def opened_flat(tree: Any) -> tuple[list[Any], TreeSpec]:
    """The leaves and the structure of `opened(tree)`."""
    leaves, spec = tree_flatten(tree)
    if not any(map(_is_instance, leaves)):
        return leaves, spec
    opened = [_opened(leaf) if _is_instance(leaf) else leaf for leaf in leaves]
    return tree_flatten(tree_unflatten(opened, spec))


def _is_instance(leaf: Any) -> bool:
    """True for an instance that holds a tensor; others are constants, and modules are functions."""
    if isinstance(leaf, (Tensor, type, nn.Module)) or not dataclasses.is_dataclass(leaf):
        return False
    values = (getattr(leaf, field.name, None) for field in dataclasses.fields(leaf))
    return any(
        isinstance(v, Tensor) or _is_instance(v) for value in values for v in tree_leaves(value)
    )


def _opened(instance: Any) -> _Fields:
    names = tuple(
        field.name for field in dataclasses.fields(instance) if hasattr(instance, field.name)
    )
    return _Fields(instance, names, [opened(getattr(instance, name)) for name in names])
