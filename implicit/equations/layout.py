"""Layout of the leaves of an unknown in one flat `(batch, n)` tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Leaves = tuple[Tensor, ...]

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Layout:
    """Places of the leaves of the unknown in the flat tensor.

    The flat tensor has the promoted dtype of the leaves, and float32 in place of half precision. The
    equation is evaluated in the dtype of the leaves; residuals and solver state are in the wider one.
    """

    batch_shape: torch.Size
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype

    @staticmethod
    def of(leaves: Leaves, batch_dims: int) -> Layout:
        """The layout of `leaves` whose first `batch_dims` axes index independent systems."""
        dtype = leaves[0].dtype
        for leaf in leaves[1:]:
            dtype = torch.promote_types(dtype, leaf.dtype)
        return Layout(
            leaves[0].shape[:batch_dims],
            tuple(leaf.shape for leaf in leaves),
            tuple(leaf.dtype for leaf in leaves),
            torch.float32 if dtype in _HALF else dtype,
        )

    @cached_property
    def systems(self) -> int:
        return math.prod(self.batch_shape)

    @cached_property
    def sizes(self) -> list[int]:
        batch_dims = len(self.batch_shape)
        return [math.prod(shape[batch_dims:]) for shape in self.shapes]

    @property
    def narrows(self) -> bool:
        """True if conversion back to the leaves' dtypes loses digits."""
        return any(dtype != self.dtype for dtype in self.dtypes)

    def flatten(self, leaves: Leaves) -> Tensor:
        """The flat tensor of `leaves`, or of a value with their shapes."""
        parts = [
            self._cast(leaf, (self.systems, size), self.dtype)
            for leaf, size in zip(leaves, self.sizes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unflatten(self, flat: Tensor) -> Leaves:
        """The leaves whose flat tensor is `flat`."""
        parts = (flat,) if len(self.shapes) == 1 else flat.split(self.sizes, dim=1)
        return tuple(map(self._cast, parts, self.shapes, self.dtypes))

    @staticmethod
    def _cast(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if tensor.shape != shape:
            tensor = tensor.reshape(shape)
        return tensor if tensor.dtype == dtype else tensor.to(dtype)

    def mapped(self, size: int) -> Layout:
        """The layout of `size` times as many systems, along a new first axis."""
        shapes = tuple(torch.Size((size, *shape)) for shape in self.shapes)
        return Layout(torch.Size((size, *self.batch_shape)), shapes, self.dtypes, self.dtype)

    def restricted(self, count: int) -> Layout:
        """The layout of `count` of the systems, for one batch axis."""
        shapes = tuple(torch.Size((count, *shape[1:])) for shape in self.shapes)
        return Layout(torch.Size((count,)), shapes, self.dtypes, self.dtype)
