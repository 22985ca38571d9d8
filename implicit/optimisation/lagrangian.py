"""The conditions of Karush, Kuhn and Tucker of a constrained minimum, as a mixed complementarity problem.

    ∇f + Jcᵀ y + Jgᵀ λ = 0,    c = 0,    0 ≤ λ ⊥ −g ≥ 0        for  c(z) = 0  and  g(z) ≤ 0

With bounds on `z` the first is one-sided where a bound holds an unknown back. So the derivative rule and the
active bounds of complementarity problems serve for minima with constraints too.

Source: Nocedal & Wright 2006, theorem 12.1; Facchinei & Pang 2003, section 1.3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .active_bounds import ActiveBounds
from .stationarity import Stationarity

Function = Callable[..., Any]


class ConstrainedMinimum(NamedTuple):
    """A minimiser with its multipliers, in units of the objective for each unit of a constraint.

    Attributes:
        z: The minimiser, `(*batch, n)`.
        equality: Multipliers of `c(z) = 0`, `(*batch, p)`.
        inequality: Multipliers of `g(z) ≤ 0`, ≥ 0, `(*batch, m)`.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.zeros(2, dtype=torch.float64)
        >>> found = implicitly.constrained_minimum(
        ...     lambda z: z.square().sum(), z0, equalities=lambda z: z.sum(-1, keepdim=True) - 2
        ... ).value
        >>> [round(entry, 6) for entry in found.z.tolist()], round(found.equality.item(), 6)
        ([1.0, 1.0], -2.0)
    """

    z: Any
    equality: Any
    inequality: Any


def active_constraints(bounds: ActiveBounds) -> ActiveBounds:
    """Active constraints, from the active bounds of multipliers: a constraint is active off them."""
    z, equality, inequality = bounds.active
    active = ConstrainedMinimum(z, torch.full_like(equality, 2), (inequality == 0).to(z.dtype))
    return replace(bounds, active=active)


class Lagrangian:
    """An objective and its constraints, with the conditions of their minimum.

    Attributes:
        described: The name of the objective in messages.
        batch_dims: Leading axes that index independent problems.
    """

    def __init__(
        self,
        objective: Function,
        equalities: Function | None,
        inequalities: Function | None,
        described: str,
        batch_dims: int,
        has_aux: bool = False,
    ) -> None:
        self.described, self.batch_dims = described, batch_dims
        self._given = {"equalities": equalities, "inequalities": inequalities}
        self._gradient = Stationarity(
            objective, described, batch_dims, residuals=False, has_aux=has_aux
        )
        # A weighted sum of constraints is an objective: its checks find constraints without a derivative.
        self._products = {
            name: Stationarity(self._weighted(name), f"{name} of {described}", batch_dims, residuals=False)
            for name, function in self._given.items()
            if function is not None
        }  # fmt: skip

    def __call__(self, unknown: ConstrainedMinimum, *args: Any) -> ConstrainedMinimum:
        """The function of the complementarity problem: its first part is the gradient of the Lagrangian."""
        z, equality, inequality = unknown
        gradient = self._gradient(z, *args)
        for name, multiplier in (("equalities", equality), ("inequalities", inequality)):
            if name in self._products:
                gradient = gradient + self._products[name](z, multiplier, *args)
        return ConstrainedMinimum(
            gradient, self.constraint("equalities", z, *args), -self.constraint("inequalities", z, *args)
        )  # fmt: skip

    def pair(self, unknown: ConstrainedMinimum, *args: Any) -> Any:
        """The value of the user's objective, with its auxiliary output."""
        return self._gradient.pair(unknown.z, *args)

    def objective(self, z: Tensor, *args: Any) -> Tensor:
        """The objective, `(*batch,)`, checked."""
        return self._gradient.parts(z, *args)

    def constraint(self, name: str, z: Tensor, *args: Any) -> Tensor:
        """The values of one kind of constraints, `(*batch, count)`; of none, `(*batch, 0)`.

        Raises:
            TypeError: They are no tensor in the dtype of `z`.
            ValueError: Their shape is another.
        """
        batch = z.shape[: self.batch_dims]
        function = self._given[name]
        if function is None:
            return z.new_zeros(*batch, 0)
        value = function(z, *args)
        if not isinstance(value, Tensor) or value.dtype != z.dtype:
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} must return a tensor in the dtype of z, {z.dtype}, got {what}")
        if value.dim() != self.batch_dims + 1 or value.shape[:-1] != batch:
            raise ValueError(
                f"{name} must return one axis of constraints behind the axes of the problems, "
                f"{(*batch, 'count')} with batch_dims={self.batch_dims}, got shape {tuple(value.shape)}: "
                "put them together by torch.stack(..., dim=-1)"
            )
        return value

    def jacobian(self, name: str, z: Tensor, *args: Any) -> Tensor:
        """The derivatives of one kind of constraints, `(*batch, count, n)`."""
        axes = tuple(range(self.batch_dims))

        def summed(z: Tensor) -> Tensor:
            value = self.constraint(name, z, *args)
            return value.sum(axes) if axes else value

        return torch.func.jacrev(summed)(z).movedim(0, -2)

    def hessian(self, unknown: ConstrainedMinimum, *args: Any) -> Tensor:
        """The second derivatives of the Lagrangian in `z`, `(*batch, n, n)`."""
        axes = tuple(range(self.batch_dims))

        def summed(z: Tensor) -> Tensor:
            gradient = self(unknown._replace(z=z), *args).z
            return gradient.sum(axes) if axes else gradient

        return torch.func.jacrev(summed)(unknown.z).movedim(0, -2)

    def check_derivatives(self, z: Tensor, *args: Any) -> None:
        """Raise an error if constraints depend on `z` but carry no derivative."""
        for name, product in self._products.items():
            product(z, torch.ones_like(self.constraint(name, z, *args)), *args)

    def _weighted(self, name: str) -> Function:
        def weighted(z: Tensor, weights: Tensor, *args: Any) -> Tensor:
            return (weights * self.constraint(name, z, *args)).sum(-1)

        return weighted
