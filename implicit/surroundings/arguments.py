"""Pytrees of a call: taken apart into tensors, checked, and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)

from ..equations.layout import Leaves
from .kinds import RAGGED, in_the_way, is_masked, is_ragged
from .records import opened, opened_flat


def is_argument(leaf: Any) -> bool:
    """True for a tensor that an equation has as an argument.

    A sparse or nested tensor without derivatives is a constant: most of PyTorch cannot map, expand or
    copy it.
    """
    if not isinstance(leaf, Tensor):
        return False
    return leaf.requires_grad or (leaf.layout == torch.strided and not leaf.is_nested)


@dataclass(frozen=True)
class Tree:
    """Structure of a pytree without its tensors; other leaves are kept, constant sparse tensors too."""

    spec: TreeSpec
    constants: tuple[Any, ...]
    tensor_positions: tuple[int, ...]

    @staticmethod
    def of(tree: Any) -> tuple[Tree, Leaves]:
        """The structure and the tensors of `tree`.

        Raises:
            TypeError: A tensor is of a kind that PyTorch does not differentiate here.
        """
        leaves, spec = opened_flat(tree)
        positions = tuple(i for i, leaf in enumerate(leaves) if is_argument(leaf))
        tensors = tuple(leaves[i] for i in positions)
        for tensor in tensors:
            if is_ragged(tensor):
                raise TypeError(f"an argument {RAGGED}")
        constants = tuple(None if is_argument(leaf) else leaf for leaf in leaves)
        return Tree(spec, constants, positions), tensors

    def fill(self, tensors: Leaves) -> Any:
        """The pytree with `tensors` in their places."""
        leaves = list(self.constants)
        for position, tensor in zip(self.tensor_positions, tensors, strict=True):
            leaves[position] = tensor
        return tree_unflatten(leaves, self.spec)


@dataclass(frozen=True)
class Unknown:
    """Structure of `z`."""

    spec: TreeSpec
    names: tuple[str, ...]

    @staticmethod
    def of(z0: Any, batch_dims: int) -> tuple[Unknown, Leaves]:
        """The structure and the tensors of `z0`.

        Raises:
            TypeError: A leaf is not a floating-point or complex tensor.
            ValueError: There is no leaf, or the leaves differ in batch axes or device.
        """
        paths, spec = tree_flatten_with_path(z0)
        names = tuple("z0" + keystr(path) for path, _ in paths)
        leaves = [leaf for _, leaf in paths]
        if not leaves:
            raise ValueError("z0 must hold at least one tensor, got an empty structure")
        for name, leaf in zip(names, leaves, strict=True):
            _check_leaf(name, leaf, batch_dims)
        for name, leaf in zip(names[1:], leaves[1:], strict=True):
            if leaf.shape[:batch_dims] != leaves[0].shape[:batch_dims]:
                raise ValueError(
                    f"all leaves of z0 must agree in their first {batch_dims} axes (batch_dims), but "
                    f"{names[0]} has shape {tuple(leaves[0].shape)} and {name} {tuple(leaf.shape)}"
                )
            if leaf.device != leaves[0].device:
                raise ValueError(
                    f"all leaves of z0 must be on one device, but {names[0]} is on "
                    f"{leaves[0].device} and {name} on {leaf.device}"
                )
        return Unknown(spec, names), tuple(leaves)

    @cached_property
    def _single(self) -> bool:
        """True for one tensor, in no structure."""
        return self.spec.is_leaf()

    def build(self, leaves: Leaves) -> Any:
        """The pytree with these leaves."""
        if self._single:
            return leaves[0]
        return tree_unflatten(list(leaves), self.spec)

    def leaves_of(self, described: str, value: Any, z: Leaves) -> Leaves:
        """The leaves of `value`, the function's return value at `z`.

        Raises:
            TypeError: Its structure or dtype is wrong.
            ValueError: Its shapes are not those of `z`.
        """
        if self._single and _plainly_like(value, z[0]):
            return (value,)
        if self._single and isinstance(value, Tensor):
            found, spec = [value], self.spec
        else:
            found, spec = tree_flatten(value)
        if spec != self.spec:
            pair = type(value) is tuple and len(value) == 2
            raise TypeError(
                f"{described} must return the structure of z0, {self.spec}, but returned {spec}"
                + ("; has_aux=True if the second is an auxiliary output" if pair else "")
            )
        for position, (name, leaf, at) in enumerate(zip(self.names, found, z, strict=True)):
            if not isinstance(leaf, Tensor) or leaf.dtype != at.dtype:
                found[position] = self._of_other_dtype(described, name, leaf, at)
            if is_masked(leaf) or leaf.is_nested or leaf.layout is not torch.strided:
                raise TypeError(
                    f"{described} must return dense tensors: for {name}, {in_the_way(leaf)}"
                )
            if leaf.device != at.device:
                raise ValueError(
                    f"{described} must return tensors on the device of its unknown: {name} is on "
                    f"{at.device}, but the value returned for it is on {leaf.device}; move it, or start "
                    "from a z0 that is there"
                )
            if leaf.shape != at.shape:
                raise ValueError(
                    f"{described} must return the shape of its unknown: {name} has shape "
                    f"{tuple(at.shape)}, but the value returned for it has {tuple(leaf.shape)}"
                )
        return tuple(found)

    @staticmethod
    def _of_other_dtype(described: str, name: str, leaf: Any, at: Tensor) -> Tensor:
        """A returned leaf, checked, and a real one for a complex unknown as a complex number."""
        if not isinstance(leaf, Tensor) or not _has_derivatives(leaf) or leaf.dtype.itemsize < 2:
            what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(
                f"{described} must return floating-point or complex tensors, but returned {what} for {name}"
            )
        if leaf.is_complex() and not at.is_complex():
            raise TypeError(
                f"{described} must return real tensors for a real unknown, but returned {leaf.dtype} for "
                f"{name}, which is {at.dtype}: the imaginary part would be lost. Start from a complex z0, "
                "z0 + 0j, or return the real part"
            )
        if at.is_complex() and not leaf.is_complex():
            return leaf.to(leaf.dtype.to_complex())
        return leaf


def _plainly_like(value: Any, z: Tensor) -> bool:
    """True for an ordinary dense tensor of the dtype, shape and device of `z`."""
    return (
        type(value) is Tensor
        and not value.is_nested
        and value.layout is torch.strided
        and value.shape == z.shape
        and value.dtype == z.dtype
        and value.device == z.device
    )


def _has_derivatives(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def _check_leaf(name: str, leaf: Any, batch_dims: int) -> None:
    if not isinstance(leaf, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(leaf).__name__}: {leaf!r}")
    if not _has_derivatives(leaf):
        raise TypeError(
            f"{name} must have a floating-point or complex dtype, got {leaf.dtype}; convert it, "
            "z0.double() or z0.float(), since no derivative passes through integers"
        )
    if (way := in_the_way(leaf)) is not None:
        raise TypeError(f"{name} must be a dense tensor, {way}")
    if leaf.is_meta:
        raise TypeError(f"{name} must have values to start from, got a tensor on the meta device")
    if leaf.ndim < batch_dims:
        raise ValueError(
            f"{name} must have at least batch_dims={batch_dims} axes, got shape {tuple(leaf.shape)}"
        )


def per_leaf(flags: Sequence[bool], args: tuple[Any, ...], batch: int) -> tuple[bool, ...]:
    """One flag for each tensor of `args`, from one for each argument.

    Raises:
        ValueError: The number of flags is wrong, or a batched argument has no axis of `batch` systems.
    """
    if len(flags) != len(args):
        raise ValueError(
            f"batched_args must have one entry for each of the {len(args)} arguments (keyword "
            f"arguments last), got {flags!r}"
        )
    result: list[bool] = []
    for position, (flag, arg) in enumerate(zip(flags, args, strict=True)):
        for leaf in tree_flatten(opened(arg))[0]:
            if not is_argument(leaf):
                continue
            if flag and leaf.shape[:1] != (batch,):
                raise ValueError(
                    f"batched_args says that the first axis of argument {position} indexes the "
                    f"{batch} systems, but it has a tensor of shape {tuple(leaf.shape)}"
                )
            result.append(flag)
    return tuple(result)


def describe(function: Callable[..., Any]) -> str:
    """Name of a function in messages.

    Raises:
        TypeError: It is none.
    """
    if not callable(function):
        raise TypeError(f"the function must be callable, got {function!r}")
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return f"the function {name}" if name != "<lambda>" else "the function given as a lambda"
