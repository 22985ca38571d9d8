"""Objectives on tuples of tensors, and as solvers see them, on flat ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from ...solvers.interface.derivative import Derivative
from ...solvers.interface.loss import Loss
from ...solvers.interface.objective import Objective
from ...solvers.interface.solution import Counts
from .differentiation import Product, matrix, pullback, transposed
from .layout import Layout, Leaves


@dataclass(frozen=True)
class ObjectiveForm:
    """The objective whose gradient an equation is.

    Attributes:
        given: The map from arguments to the function of `z` that gives one tensor: residuals,
            `(*batch, m)`, or the objective, `(*batch,)`.
        residuals: True for residuals.
        loss: Their loss; `None` for squares.
    """

    given: Callable[[Leaves], Product]
    residuals: bool
    loss: Loss | None = None

    def with_given(self, given: Callable[[Leaves], Product]) -> ObjectiveForm:
        """The same kind of objective by another function."""
        return replace(self, given=given)


def flat_objective(
    form: ObjectiveForm, function: Product, layout: Layout, counts: Counts
) -> Objective:
    """The objective on `(batch, n)` tensors, for `function` of the leaves of `z`."""

    def on_flat(z: Tensor) -> Tensor:
        value = function(layout.unflatten(z))[0].to(layout.dtype)
        return value.reshape(layout.systems, -1) if form.residuals else value.reshape(-1)

    if not form.residuals:
        return Objective(on_flat, counts=counts)

    def linearize(z: Tensor) -> tuple[Tensor, Derivative]:
        (value,), back = pullback(lambda z: (on_flat(z),), (z,))
        return value, _Rectangular(value, back)

    return Objective(on_flat, linearize, form.loss, counts)


@dataclass
class _Rectangular:
    """Products with the Jacobians of residuals, `(batch, m, n)`, at one point."""

    value: Tensor
    back: Product

    @cached_property
    def _forward(self) -> Product:
        return transposed(self.back, (self.value,))

    def jvp(self, v: Tensor) -> Tensor:
        return self._forward((v,))[0]

    def vjp(self, u: Tensor) -> Tensor:
        return self.back((u,))[0]

    def jacobian(self, like: Tensor) -> Tensor:
        """All Jacobians, by the fewer of rows and columns."""
        if self.value.shape[1] <= like.shape[1]:
            return matrix(self.vjp, self.value.detach()).mT
        return matrix(self.jvp, like.detach())
