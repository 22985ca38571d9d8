"""Derivatives of solutions that another solver finds: `implicit_function`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from ..options.options import check_callable, check_truth
from ..solvers import GivenSolution, Solution, Stopping
from ..solvers.interface.problem import Form
from .calls.settings import Settings
from .calls.solving import solve_equation
from .equations.differentiation import constants
from .equations.layout import Leaves
from .gradients import Gradient
from .surroundings.arguments import Tree, describe
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy

Solve = Callable[..., Any]


def implicit_function(
    F: Callable[..., Any],
    *,
    form: Form = "root",
    arrays: bool = False,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    has_aux: bool = False,
) -> Callable[[Solve], Callable[..., Solution]]:
    """Decorator that makes a function which returns a solution differentiable.

    `solve(*args, **keywords)` may do anything: call SciPy, C++ or a simulator. Its answer is taken as it is
    for the solution `z` of `F(z, *args, **keywords) = 0`. The decorated function returns a `Solution`. Its
    `value` is that `z`, with exact derivatives of every order in the arguments; status, residual norm and
    error are found by `F` at `z`, see `GivenSolution`. The derivatives are those of the implicit function
    theorem, and need `F` to be made of differentiable torch operations; `solve` need not be.

    Args:
        F: The residual, or with `form="fixed_point"` the map, as in `root` and `fixed_point`.
        form: `"root"` for `F(z, ...) = 0`, `"fixed_point"` for `z = F(z, ...)`.
        arrays: `solve` is called with NumPy arrays in place of tensors. In either case it may return tensors,
            arrays and numbers, or a pytree of them. Arrays and numbers become tensors on the device and in
            the precision of the arguments.
        stopping: Tolerances on the error and the residual; `None` for the defaults of the dtype. There are no
            steps to limit.
        gradient: The gradient mode; `None` for `Exact()`.
        batch_dims: Leading axes of the solution that index independent systems, each with its own status.
        on_failure: `"raise"` a `SolveError`, `"warn"` or `"accept"` when a system is not solved.
        has_aux: `F` returns a pair; see `root`.

    Returns:
        The decorator. Under `torch.vmap` the function that it returns calls `solve` for one slice after
        another.

    Raises:
        TypeError: `F` is not callable, or an option has the wrong type. When called: `solve` returns anything
            but numbers.
        ValueError: An option is out of range.
        SolveError: When called: `z` does not solve the equation, with `on_failure="raise"`.

    Source: Krantz & Parks 2002 (implicit function theorem); Blondel et al. 2022, arXiv:2105.15183
    (derivatives of solutions that any solver finds).

    Examples:
        >>> import torch, implicitly
        >>> from scipy.optimize import brentq
        >>> @implicitly.implicit_function(lambda z, x: z**3 + z - x, arrays=True)
        ... def cubic(x):
        ...     return brentq(lambda z: z**3 + z - x, -10.0, 10.0)
        >>> x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> z = cubic(x).value
        >>> z.backward()
        >>> round(z.item(), 6), round(x.grad.item(), 6)  # 1 and 1 / (3 z² + 1)
        (1.0, 0.25)
    """
    if not callable(F):
        raise TypeError(f"F must be callable, got {F!r}")
    check_truth("arrays", arrays)
    settings = Settings(
        form, GivenSolution(), stopping, gradient, batch_dims, on_failure, has_aux=has_aux
    )
    if settings.chosen_gradient.records_steps:
        raise TypeError(
            f"gradient={gradient!r} differentiates the steps of a solver, and a given solution has none: "
            "give Exact(), or another mode that differentiates the solution"
        )

    def decorator(solve: Solve) -> Callable[..., Solution]:
        check_callable("solve", solve)
        described = f"{describe(F)} at the answer of {describe(solve)}"

        @outside_of_graphs
        @functools.wraps(solve)
        def solved(*args: Any, **keywords: Any) -> Solution:
            z = _answer(solve, described, arrays, args, keywords)
            return solve_equation(F, z, args, settings, described, keywords)

        return solved

    return decorator


def _answer(
    solve: Solve, described: str, arrays: bool, args: tuple[Any, ...], keywords: dict[str, Any]
) -> Any:
    """The answer of `solve` for these arguments, in tensors without derivatives."""
    tree, tensors = Tree.of((args, keywords))
    asked = _Asked(solve, described, arrays, tree)
    answer = _Answer.apply(asked, *tensors)
    return tree_unflatten(list(answer), asked.structure[-1])


@dataclass(frozen=True)
class _Asked:
    """A call of the other solver; `structure` takes that of what it returns."""

    solve: Solve
    described: str
    arrays: bool
    tree: Tree
    structure: list[TreeSpec] = field(default_factory=list)

    def answer(self, tensors: Leaves) -> Leaves:
        """The leaves of the answer for plain tensors."""
        args, keywords = self.tree.fill(constants(tensors))
        if self.arrays:
            args, keywords = tree_map_only(Tensor, _array, (args, keywords))
        with torch.no_grad():
            leaves, spec = tree_flatten(self.solve(*args, **keywords))
        self.structure.append(spec)
        own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        found = tuple(self._tensor(leaf, tensors) for leaf in leaves)
        # An output of an autograd function must be none of its inputs.
        return tuple(t.clone() if t.untyped_storage().data_ptr() in own else t for t in found)

    def _tensor(self, leaf: Any, like: Leaves) -> Tensor:
        if isinstance(leaf, Tensor):
            return leaf.detach()
        like = tuple(tensor for tensor in like if tensor.is_floating_point() or tensor.is_complex())
        try:
            # By way of an array: PyTorch makes a tensor in single precision of a number.
            tensor = torch.as_tensor(np.asarray(leaf), device=like[0].device if like else None)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{self.described} must be a tensor, an array, a number or a pytree of them, but holds "
                f"{type(leaf).__name__}: {leaf!r}"
            ) from error
        if not like:
            return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.double()
        dtype = functools.reduce(torch.promote_types, (t.dtype.to_real() for t in like))
        return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def _array(tensor: Tensor) -> Any:
    """The array of a tensor, in memory of its own."""
    return tensor.cpu().numpy().copy()


class _Answer(torch.autograd.Function):
    """The call of the other solver on plain tensors, at any level of transforms; it has no derivative."""

    @staticmethod
    def forward(asked: _Asked, *tensors: Tensor) -> Leaves:
        return asked.answer(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], asked: _Asked, *tensors: Tensor
    ) -> tuple[Leaves, tuple[int, ...]]:
        if info.batch_size == 0:
            raise ValueError(
                f"{asked.described}: vmap over no slices, whose answer has no known shape"
            )
        slices = [
            _Answer.apply(
                asked,
                *(
                    t if dim is None else t.select(dim, i)
                    for t, dim in zip(tensors, in_dims[1:], strict=True)
                ),
            )
            for i in range(info.batch_size)
        ]
        if any(structure != asked.structure[-1] for structure in asked.structure):
            raise ValueError(f"{asked.described} must have one structure for all slices of vmap")
        stacked = tuple(map(torch.stack, zip(*slices, strict=True)))
        return stacked, (0,) * len(stacked)
