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

    A complex entry is two real ones, its real and its imaginary part. So solvers know real numbers only, and
    an equation need not be holomorphic. Products with `Jᵀ` in the real form are the gradients of PyTorch,
    `∂L/∂(Re z) + i ∂L/∂(Im z)`.
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
        dtype = dtype.to_real()
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
        return [
            math.prod(shape[batch_dims:]) * (2 if dtype.is_complex else 1)
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        ]

    @cached_property
    def _single(self) -> tuple[int, int] | None:
        """The shape of the flat tensor, if the unknown is one tensor of real numbers."""
        if len(self.shapes) > 1 or self.has_complex:
            return None
        return self.systems, self.sizes[0]

    @property
    def narrows(self) -> bool:
        """True if conversion back to the leaves' dtypes loses digits."""
        return any(dtype.to_real() != self.dtype for dtype in self.dtypes)

    def flatten(self, leaves: Leaves) -> Tensor:
        """The flat tensor of `leaves`, or of a value with their shapes."""
        if self._single is not None:
            return self._cast(leaves[0], self._single, self.dtype)
        if self.has_complex:
            leaves = tuple(map(_in_pairs, leaves))
        parts = [
            self._cast(leaf, (self.systems, size), self.dtype)
            for leaf, size in zip(leaves, self.sizes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unflatten(self, flat: Tensor) -> Leaves:
        """The leaves whose flat tensor is `flat`."""
        if self._single is not None:
            return (self._cast(flat, self.shapes[0], self.dtypes[0]),)
        parts = (flat,) if len(self.shapes) == 1 else flat.split(self.sizes, dim=1)
        if not self.has_complex:
            return tuple(map(self._cast, parts, self.shapes, self.dtypes))
        return tuple(
            self._of_pairs(part, shape, dtype.to_real())
            if dtype.is_complex
            else self._cast(part, shape, dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        )

    @classmethod
    def _of_pairs(cls, part: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Complex numbers from a flat tensor of their real and imaginary parts."""
        pairs = cls._cast(part, (*shape, 2), dtype)
        return torch.complex(pairs[..., 0], pairs[..., 1])

    @cached_property
    def has_complex(self) -> bool:
        """True if a leaf is complex."""
        return any(dtype.is_complex for dtype in self.dtypes)

    def moduli(self, flat: Tensor) -> Tensor:
        """Absolute values; at both parts of a complex number its modulus."""
        return self.flatten(
            tuple(
                torch.complex(leaf.abs(), leaf.abs()) if leaf.is_complex() else leaf.abs()
                for leaf in self.unflatten(flat)
            )
        )

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


def _in_pairs(leaf: Tensor) -> Tensor:
    """A complex tensor with a last axis of real and imaginary parts; any other as it is."""
    return torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf
