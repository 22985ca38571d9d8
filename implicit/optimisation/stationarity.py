"""The gradient of an objective as an equation: `∇_z φ(z, *args) = 0`, that of a minimiser.

For least squares `φ = ½ Σ ρ(r²)`, so that the equation is `Jᵀ ρ'(r²) r = 0`. Its Jacobian is the whole
Hessian of the objective: derivatives of a minimiser are those of a root, of every order and in every mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from ...solvers.interface.loss import Loss
from ...solvers.interface.objective import half_sum
from ..equations.differentiation import MissingDerivativeError
from ..equations.layout import Layout, Leaves
from ..equations.objectives import ObjectiveForm
from ..surroundings.auxiliary import parts_of

_HALF = (torch.float16, torch.bfloat16)
# A move of an unknown, relative to its size, that shows whether an objective depends on it.
_MOVE = 1e-3


class Stationarity:
    """The gradient with respect to `z` of the user's objective, or of its least squares.

    Attributes:
        function: The user's function, of `z` and the arguments.
        described: Its name in messages.
        batch_dims: Leading axes that index independent systems.
        residuals: The function gives residuals.
        loss: Their loss; `None` for squares.
        has_aux: The function returns a pair, of which the second is not part of the objective.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        described: str,
        batch_dims: int,
        *,
        residuals: bool,
        loss: Loss | None = None,
        has_aux: bool = False,
    ) -> None:
        self.function, self.described, self.batch_dims = function, described, batch_dims
        self.residuals, self.loss, self.has_aux = residuals, loss, has_aux
        self._shapes: list[tuple[int, ...]] | None = None
        """The shapes of the residuals of a system, from the first evaluation on."""

    def __call__(self, z: Any, *args: Any) -> Any:
        """The gradient, in the structure of `z`."""
        leaves, spec = tree_flatten(z)
        attached = True

        def total(*leaves: Tensor) -> Tensor:
            nonlocal attached
            sums = self._objective(tree_unflatten(list(leaves), spec), *args).sum()
            attached = sums.requires_grad
            return sums

        # Autograd of its own kind: the graph that is left leads to arguments and captured tensors alone.
        gradient = torch.func.grad(total, argnums=tuple(range(len(leaves))))(*leaves)
        if not attached:
            self._check_constant(leaves, spec, args)
        return tree_unflatten(list(gradient), spec)

    def parts(self, z: Any, *args: Any) -> Tensor:
        """The residuals, `(*batch, m)`, or the objective, `(*batch,)`, checked.

        Raises:
            TypeError: The value is no real number where one is expected, or holds no tensors.
            ValueError: Its shape does not fit the systems, or has changed.
        """
        value = self.function(z, *args)
        if self.has_aux:
            value = parts_of(self.described, value)[0]
        batch = tree_flatten(z)[0][0].shape[: self.batch_dims]
        return self._stacked(value, batch) if self.residuals else self._scalar(value, batch)

    def pair(self, z: Any, *args: Any) -> Any:
        """The value of the user's function, with its auxiliary output."""
        return self.function(z, *args)

    def form(self, given: Callable[[Leaves], Callable[[Leaves], Leaves]]) -> ObjectiveForm:
        """The objective for solvers, with `given` giving `parts` on leaves."""
        return ObjectiveForm(given, self.residuals, self.loss)

    def _objective(self, z: Any, *args: Any) -> Tensor:
        parts = self.parts(z, *args)
        if parts.dtype in _HALF:  # Sums of squares leave the range of half precision.
            parts = parts.float()
        return half_sum(parts, self.loss) if self.residuals else parts

    def _scalar(self, value: Any, batch: torch.Size) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{self.described} must return the objective as a tensor, got {type(value).__name__}"
            )
        if not value.is_floating_point():
            raise TypeError(
                f"{self.described} must return a real floating-point objective, got {value.dtype}: sum the "
                "squared moduli of complex numbers"
            )
        if value.shape != batch:
            raise ValueError(
                f"{self.described} must return one number for each system, of shape {tuple(batch)} with "
                f"batch_dims={self.batch_dims}, got shape {tuple(value.shape)}: sum it over the other axes, "
                "give batch_dims if the leading axes index systems, or call least_squares for residuals"
            )
        return value

    def _stacked(self, value: Any, batch: torch.Size) -> Tensor:
        paths = tree_flatten_with_path(value)[0]
        if not paths:
            raise TypeError(f"{self.described} must return residuals, got an empty structure")
        parts, shapes = [], []
        for path, leaf in paths:
            name = f"residual{keystr(path)}"
            if not isinstance(leaf, Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
                what = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(
                    f"{self.described} must return floating-point or complex residuals, got {what} for {name}"
                )
            if leaf.shape[: self.batch_dims] != batch:
                raise ValueError(
                    f"{self.described} must return residuals whose first axes are those of the systems, "
                    f"{tuple(batch)} with batch_dims={self.batch_dims}, got shape {tuple(leaf.shape)} for "
                    f"{name}"
                )
            shapes.append(tuple(leaf.shape[self.batch_dims :]))
            if leaf.is_complex():
                leaf = torch.view_as_real(leaf.resolve_conj())
            # The number of residuals is written out, as a batch may be empty.
            own = leaf.shape[self.batch_dims :].numel()
            parts.append(leaf.reshape(*batch, own))
        self._check_shapes(shapes)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        if self._shapes is None:
            self._shapes = shapes
        if shapes != self._shapes:
            raise ValueError(
                f"{self.described} must return residuals of the same shapes in each evaluation: they were "
                f"{self._shapes}, and now they are {shapes}. Give a missing residual the value zero"
            )

    def _check_constant(self, leaves: list[Tensor], spec: Any, args: tuple[Any, ...]) -> None:
        """Raise an error if the objective depends on `z`, but carries no derivative."""
        with torch.no_grad():
            before = self._objective(tree_unflatten(leaves, spec), *args)
            moved = [leaf + (1 + leaf.abs()) * _MOVE for leaf in leaves]
            after = self._objective(tree_unflatten(moved, spec), *args)
        if not bool((before == after).all()):
            raise MissingDerivativeError(
                f"the value of {self.described} changes with z, but carries no derivative: it is computed by "
                "NumPy, under torch.no_grad(), or was detached. Compute it by differentiable operations of "
                "PyTorch, or give the derivative by a torch.autograd.Function"
            )


def size_of_system(z0: Any, batch_dims: int) -> int:
    """The number of real unknowns of one system; 0 where `z0` is no structure of tensors."""
    leaves = [leaf for leaf in tree_flatten(z0)[0] if isinstance(leaf, Tensor)]
    if not leaves or not all(leaf.dtype.is_floating_point or leaf.is_complex() for leaf in leaves):
        return 0
    return sum(Layout.of(tuple(leaves), batch_dims).sizes)
