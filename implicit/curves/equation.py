"""An equation with one scalar parameter on flat vectors: `F(z, λ, *args) = 0` for `w = (z, λ)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_map_only,
    tree_unflatten,
)

from ..equations.differentiation import transforming
from ..surroundings.arguments import describe

_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class CurveEquation:
    """The user's function and arguments, with the structure of its unknown.

    Attributes:
        function: `F(z, parameter, *args)`.
        args: Its further arguments, with their gradients.
        described: The name of `F` in messages.
        spec, shapes: Structure of the unknown, and shapes of its leaves.
        like: An empty tensor of the dtype and on the device of the unknown.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    described: str
    spec: TreeSpec
    shapes: tuple[torch.Size, ...]
    like: Tensor

    @staticmethod
    def of(
        F: Callable[..., Any], z: Any, args: tuple[Any, ...], *, within_transforms: bool = False
    ) -> CurveEquation:
        """The equation of unknowns like `z`.

        Raises:
            TypeError: `F` is not callable, or `z` is no structure of real tensors of one dtype.
            ValueError: `z` has no entries.
            RuntimeError: A transform of `torch.func` is active.
        """
        if not callable(F):
            raise TypeError(f"F must be callable, got {F!r}")
        if transforming() and not within_transforms:
            raise RuntimeError(
                "a curve is followed by values, which tensors inside of torch.func transforms do not have: "
                "call continuation or sweep outside of the transform, or differentiate by backward() and "
                "torch.autograd.grad. Inside of it, give fold or root the point that was found outside"
            )
        paths, spec = tree_flatten_with_path(z)
        leaves = [leaf for _, leaf in paths]
        for path, leaf in paths:
            name = f"z0{keystr(path)}"
            if not isinstance(leaf, Tensor):
                raise TypeError(
                    f"{name} must be a floating-point tensor, got {type(leaf).__name__}"
                )
            if leaf.is_complex():
                raise TypeError(
                    f"{name} must be real to be followed along a curve, got {leaf.dtype}: give its real and "
                    "imaginary parts as two leaves, and the residual in the same way"
                )
            if leaf.dtype not in _DTYPES or leaf.dtype != leaves[0].dtype:
                raise TypeError(
                    f"the leaves of z0 must all be float32 or all float64, got {leaf.dtype} for {name}"
                )
        if sum(leaf.numel() for leaf in leaves) == 0:
            raise ValueError("z0 must have at least one entry, got none")
        like = leaves[0].detach().new_empty(0)
        return CurveEquation(F, args, describe(F), spec, tuple(x.shape for x in leaves), like)

    @property
    def n(self) -> int:
        """The number of unknowns without the parameter."""
        return sum(shape.numel() for shape in self.shapes)

    @property
    def eps(self) -> float:
        """The unit of rounding."""
        return torch.finfo(self.like.dtype).eps

    def constant(self) -> CurveEquation:
        """The same with arguments that carry no derivatives."""
        return replace(self, args=tree_map_only(Tensor, torch.Tensor.detach, self.args))

    def number(self, name: str, value: Any) -> Tensor:
        """A parameter as a tensor without axes, in the dtype of the unknown.

        Raises:
            TypeError: It is no real number.
            ValueError: It has axes, or is not finite.
        """
        if isinstance(value, Tensor):
            if value.dim() > 0:
                raise ValueError(
                    f"{name} must be one number, the parameter along which the curve is followed, got a "
                    f"tensor of shape {tuple(value.shape)}: give the other parameters in args"
                )
            if not value.is_floating_point():
                raise TypeError(f"{name} must be a real floating-point number, got {value.dtype}")
            found = value.to(self.like)
        elif isinstance(value, Real) and not isinstance(value, bool):
            found = self.like.new_tensor(float(value))
        else:
            raise TypeError(f"{name} must be a number or a tensor without axes, got {value!r}")
        if not transforming() and not bool(torch.isfinite(found.detach())):
            raise ValueError(f"{name} must be finite, got {value!r}")
        return found

    def flat(self, z: Any) -> Tensor:
        """The entries of a structure like the unknown, `(n,)`."""
        return torch.cat([leaf.reshape(-1) for leaf in tree_flatten(z)[0]])

    def structured(self, flat: Tensor) -> Any:
        """The structure of the unknown from entries `(..., n)`; leading axes stay in front."""
        parts = flat.split([shape.numel() for shape in self.shapes], dim=-1)
        leaves = [
            part.reshape((*flat.shape[:-1], *shape))
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return tree_unflatten(leaves, self.spec)

    def residual(self, z: Tensor, parameter: Tensor, *args: Any) -> Tensor:
        """`F`, `(n,)`, at entries `(n,)` and a parameter, for these arguments in place of its own.

        Raises:
            TypeError: The value is no structure of real tensors like the unknown.
            ValueError: A shape differs from that of the unknown.
        """
        value = self.function(self.structured(z), parameter, *args)
        leaves, spec = tree_flatten(value)
        if spec != self.spec:
            raise TypeError(
                f"{self.described} must return a residual in the structure of z0, {self.spec}; got {spec}"
            )
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if not isinstance(leaf, Tensor) or leaf.dtype != self.like.dtype:
                what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(
                    f"{self.described} must return tensors of {self.like.dtype}, as z0 has, got {what}"
                )
            if leaf.shape != shape:
                raise ValueError(
                    f"{self.described} must return a residual of the shape of the unknown, {tuple(shape)}, "
                    f"got {tuple(leaf.shape)}: one equation for each unknown, and none for the parameter"
                )
        return self.flat(value)

    def at(self, w: Tensor) -> Tensor:
        """`F`, `(n,)`, at `w = (z, λ)`, `(n + 1,)`, for its own arguments."""
        return self.residual(w[:-1], w[-1], *self.args)
