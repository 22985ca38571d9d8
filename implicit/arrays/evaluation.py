"""Calls of a function of arrays, as autograd functions with first derivatives by finite differences.

The Jacobian of a call is an autograd function of its own: it has no derivative, and says so if one is asked
for. Products with it are ordinary operations, so that derivatives in the factors, mapped factors and both
modes of differentiation are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from ..equations.capture import levels
from ..equations.differentiation import MissingDerivativeError
from ..equations.layout import Layout, Leaves
from ..surroundings.arguments import Tree
from .finite_differences import blocks


@dataclass(frozen=True)
class Called:
    """One call: the function, and the structure of its arguments.

    Attributes:
        function: The function of arrays.
        typical: The size of a number below which steps of differences get no smaller.
        described: Its name in messages.
        batch_dims: Leading axes of the unknown that index independent systems.
        leaves: The number of tensors of the unknown, the first ones of a call.
        spec: The structure of the unknown.
        tree: The structure of the other arguments.
        bounded: The last tensors of a call are lower and upper bounds of the unknown.
    """

    function: Callable[..., Any]
    typical: float
    described: str
    batch_dims: int
    leaves: int
    spec: TreeSpec
    tree: Tree
    bounded: bool = False

    def value(self, tensors: Leaves) -> Leaves:
        """The leaves of the value at plain tensors, in the dtypes and on the device of the unknown."""
        unknown = tensors[: self.leaves]
        arrays = [_array(leaf) for leaf in unknown]
        own = tensors[self.leaves : -2 * self.leaves if self.bounded else None]
        args = tree_map_only(Tensor, _array, self.tree.fill(own))
        found, spec = tree_flatten(self.function(tree_unflatten(arrays, self.spec), *args))
        if spec != self.spec:
            raise TypeError(
                f"{self.described} must return arrays in the structure of z0, {self.spec}, but "
                f"returned {spec}"
            )
        return tuple(map(self._tensor, found, unknown))

    def _tensor(self, found: Any, like: Tensor) -> Tensor:
        if isinstance(found, Tensor):
            raise TypeError(
                f"{self.described}, a function of arrays, must return arrays, but returned a tensor"
            )
        array = np.asarray(found)
        if array.dtype.kind not in "fciu":
            raise TypeError(
                f"{self.described} must return arrays of numbers, but returned "
                f"{type(found).__name__}: {found!r}"
            )
        if array.dtype.kind == "c" and not like.is_complex():
            raise TypeError(
                f"{self.described} must return real arrays for a real unknown, but returned {array.dtype}"
            )
        # A copy: the function may return the same memory at each call.
        return torch.from_numpy(np.array(array)).to(like)

    def jacobian(self, position: int, tensors: Leaves) -> Tensor:
        """`∂F/∂(tensor at a position)` by finite differences, of flat tensors: `(rows, m, n)`.

        In the unknown there is a row for each system, else one for all.
        """
        own = range(self.leaves) if position < self.leaves else [position]
        batch_dims = self.batch_dims if position < self.leaves else 0
        layout = Layout.of(tuple(tensors[i] for i in own), batch_dims)
        values = Layout.of(tensors[: self.leaves], batch_dims)

        def function(flat: Tensor) -> Tensor:
            moved = list(tensors)
            for i, leaf in zip(own, layout.unflatten(flat), strict=True):
                moved[i] = leaf
            return values.flatten(self.value(tuple(moved)))

        at = layout.flatten(tuple(tensors[i] for i in own))
        bounds = None
        if self.bounded and position < self.leaves:
            lower, upper = tensors[-2 * self.leaves : -self.leaves], tensors[-self.leaves :]
            bounds = layout.flatten(lower), layout.flatten(upper)
        return blocks(function, at, self.typical, bounds)


def _array(tensor: Tensor) -> np.ndarray:
    """The array of a tensor, in memory of its own."""
    if tensor.dtype == torch.bfloat16:
        raise TypeError(
            "a function of arrays takes no bfloat16, which NumPy has not: convert by float()"
        )
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array.copy()


class ArrayCall(torch.autograd.Function):
    """The value; its derivatives are products with `_Jacobian`."""

    @staticmethod
    def forward(called: Called, *tensors: Tensor) -> Leaves:
        return called.value(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        ctx.called, *tensors = inputs
        ctx.matrices = {}
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        called, tensors = ctx.called, ctx.saved_tensors
        leaves = called.leaves
        filled = tuple(
            torch.zeros_like(leaf) if cotangent is None else cotangent
            for leaf, cotangent in zip(tensors, cotangents, strict=False)
        )
        needed = [_asked_for(ctx, position) for position in range(len(tensors))]
        gradients: list[Tensor | None] = [None] * len(tensors)
        if any(needed[:leaves]):
            layout = Layout.of(tensors[:leaves], called.batch_dims)
            product = _times(layout.flatten(filled), _matrix(ctx, 0))
            gradients[:leaves] = layout.unflatten(product)
        for position in range(leaves, len(tensors)):
            if needed[position]:
                own, whole = Layout.of((tensors[position],), 0), Layout.of(tensors[:leaves], 0)
                product = _times(whole.flatten(filled), _matrix(ctx, position))
                (gradients[position],) = own.unflatten(product)
        return (None, *gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Leaves:
        called, tensors = ctx.called, ctx.saved_tensors
        leaves = called.leaves
        total = tuple(map(torch.zeros_like, tensors[:leaves]))

        def add(position: int, batch_dims: int, own: Leaves, directions: Leaves) -> None:
            nonlocal total
            layout, values = Layout.of(own, batch_dims), Layout.of(tensors[:leaves], batch_dims)
            product = _times(layout.flatten(directions), _matrix(ctx, position).mT)
            total = tuple(map(torch.add, total, values.unflatten(product)))

        if any(tangent is not None for tangent in tangents[:leaves]):
            own = tensors[:leaves]
            given = zip(tangents[:leaves], own, strict=True)
            filled = tuple(torch.zeros_like(leaf) if t is None else t for t, leaf in given)
            add(0, called.batch_dims, own, filled)
        for position in range(leaves, len(tensors)):
            tangent = tangents[position]
            if tangent is not None:
                add(position, 0, (tensors[position],), (tangent,))
        return total

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], called: Called, *tensors: Tensor
    ) -> tuple[Leaves, tuple[int, ...]]:
        values = _of_slices(info, in_dims[1:], tensors, lambda *own: ArrayCall.apply(called, *own))
        stacked = tuple(map(torch.stack, zip(*values, strict=True)))
        return stacked, (0,) * len(stacked)


def _asked_for(ctx: Any, position: int) -> bool:
    """True unless the gradient in a tensor of a call is for nobody: differences are too dear for that.

    `needs_input_grad` is also true for a tensor that requires gradients which this backward pass leaves out.
    """
    if not ctx.needs_input_grad[1 + position]:
        return False
    node = ctx.next_functions[position][0]
    try:
        return node is not None and bool(torch._C._will_engine_execute_node(node))
    except (
        RuntimeError
    ):  # PyTorch's answer for a leaf that is asked for, and outside of its engine.
        return True


def _matrix(ctx: Any, position: int) -> Tensor:
    """The Jacobian in a tensor of a call, kept for its next product."""
    key = position, torch.is_grad_enabled()
    if key in ctx.matrices:
        return ctx.matrices[key]
    matrix: Tensor = _Jacobian.apply(ctx.called, position, *ctx.saved_tensors)
    *_, innermost = levels(matrix)
    if innermost is matrix:  # Tensors of a transform must not leave it.
        ctx.matrices[key] = matrix
    return matrix


class _Jacobian(torch.autograd.Function):
    """`∂F/∂(tensor at a position)` of a call, `(rows, m, n)`, of flat real tensors."""

    @staticmethod
    def forward(called: Called, position: int, *tensors: Tensor) -> Tensor:
        return called.jacobian(position, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.described = inputs[0].described

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        raise _second(ctx.described)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise _second(ctx.described)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], called: Called, position: int, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        matrices = _of_slices(
            info, in_dims[2:], tensors, lambda *own: _Jacobian.apply(called, position, *own)
        )
        return torch.stack(matrices), 0


def _second(described: str) -> MissingDerivativeError:
    return MissingDerivativeError(
        f"a derivative of second order is asked for, and {described}, a function of arrays, has those of "
        "first order alone, by finite differences: write it in torch operations"
    )


def _of_slices(
    info: Any, dims: tuple[int | None, ...], tensors: Leaves, function: Callable[..., Any]
) -> list[Any]:
    """The values of `function` for one slice of the mapped tensors after another."""
    if info.batch_size == 0:
        raise ValueError(
            "vmap over no slices: a function of arrays is called for one after another"
        )
    return [
        function(
            *(t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True))
        )
        for i in range(info.batch_size)
    ]


def _times(rows: Tensor, matrices: Tensor) -> Tensor:
    """The products of rows, `(rows, m)`, with matrices, `(rows, m, n)`."""
    return torch.bmm(rows.unsqueeze(1), matrices).squeeze(1)
