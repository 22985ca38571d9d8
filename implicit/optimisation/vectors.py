"""Unknowns of any structure as vectors, for methods that form dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Vectors:
    """A pytree of real tensors as one vector for each problem, `(*batch, n)`.

    Attributes:
        spec: The structure.
        shapes: Shapes of the leaves behind the axes of the problems.

    Examples:
        >>> z0 = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
        >>> vectors = Vectors.of(z0, batch_dims=1)
        >>> vectors.flat(z0)[0].tolist(), vectors.build(vectors.flat(z0))["b"].shape
        ([1.0, 1.0, 1.0, 0.0], torch.Size([2]))
    """

    spec: TreeSpec
    shapes: tuple[torch.Size, ...]

    @staticmethod
    def of(z0: Any, batch_dims: int) -> Vectors:
        """The form of the vectors.

        Raises:
            TypeError: A leaf is no real floating-point tensor, or they have several dtypes.
            ValueError: There is no leaf, or their leading axes differ.
        """
        leaves, spec = tree_flatten(z0)
        if not leaves:
            raise ValueError("z0 must hold at least one tensor, got an empty structure")
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(f"z0 must hold real floating-point tensors, got {what}")
            if leaf.dim() < batch_dims or leaf.shape[:batch_dims] != leaves[0].shape[:batch_dims]:
                raise ValueError(
                    f"the first {batch_dims} axes of each leaf of z0 must be those of the problems, with "
                    f"batch_dims={batch_dims}, got shapes {tuple(leaves[0].shape)} and {tuple(leaf.shape)}"
                )
            if leaf.dtype != leaves[0].dtype:
                raise TypeError(
                    f"the leaves of z0 must have one dtype, got {leaves[0].dtype} and {leaf.dtype}: convert "
                    "them"
                )
        return Vectors(spec, tuple(leaf.shape[batch_dims:] for leaf in leaves))

    @property
    def plain(self) -> bool:
        """True for one tensor that is a vector already."""
        return self.spec.is_leaf() and len(self.shapes[0]) == 1

    def flat(self, tree: Any) -> Tensor:
        """The vectors of a pytree."""
        leaves = tree_flatten(tree)[0]
        if self.plain:
            return leaves[0]
        behind = zip(leaves, self.shapes, strict=True)
        batches = ((leaf, leaf.shape[: leaf.dim() - len(shape)]) for leaf, shape in behind)
        parts = [
            leaf.reshape((*batch, leaf.shape[len(batch) :].numel())) for leaf, batch in batches
        ]
        return torch.cat(parts, dim=-1)

    def build(self, z: Tensor) -> Any:
        """The pytree of vectors."""
        if self.plain:
            return z
        parts = z.split([shape.numel() for shape in self.shapes], dim=-1)
        leaves = zip(parts, self.shapes, strict=True)
        return tree_unflatten([p.reshape((*p.shape[:-1], *s)) for p, s in leaves], self.spec)

    def of_vector(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the pytree as one of its vector."""
        if self.plain:
            return function
        return lambda z, *args: function(self.build(z), *args)
