"""The linear equations that the implicit function theorem derives from an equation.

For an equation with function `f` (a fixed-point map or a residual `F`; the theorem reads the same for
both) and solution `z(args)`, write `J = ∂f/∂z`. Differentiating `f(z, args) = z` or `F(z, args) = 0` gives

    fixed point:  ż = J ż + ḟ          root:  J ż + Ḟ = 0          (tangent)
    fixed point:  u = Jᵀu + z̄          root:  Jᵀu + z̄ = 0          (adjoint)

where `ḟ` is the tangent of `f` along the arguments alone, and the arguments' gradients are
`(∂f/∂args)ᵀ u`. So a derived equation has the form of its parent: its function is a product with `J`
or `Jᵀ` plus a constant. It is an equation itself, and can be differentiated again.

Source: Bai, Kolter & Koltun 2019, theorem 1; Krantz & Parks 2002 (implicit function theorem).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...solvers.interface.problem import Form
from .differentiation import Product, transposed
from .equation import Bound, Direction, Equation, at_first_use
from .identity import Identity
from .layout import Leaves


class Packed(NamedTuple):
    """Arguments of a derived equation: the parent's solution, the constant, the parent's arguments."""

    z: Leaves
    constant: Leaves
    args: Leaves

    @staticmethod
    def of(tensors: Leaves, leaves: int) -> Packed:
        """The parts of a flat tuple; the first two have `leaves` tensors each."""
        return Packed(tensors[:leaves], tensors[leaves : 2 * leaves], tensors[2 * leaves :])

    @property
    def flat(self) -> Leaves:
        """All tensors in one tuple."""
        return (*self.z, *self.constant, *self.args)


@dataclass(frozen=True)
class DerivedEquation(Equation):
    """`operator(x) + constant` for an operator taken at a solution of `parent`.

    Its arguments are the tensors of a `Packed`.
    """

    parent: Equation
    leaves: int

    @property
    def form(self) -> Form:  # type: ignore[override]
        return self.parent.form

    @property
    def batch_dims(self) -> int:  # type: ignore[override]
        # The adjoint runs against time, so that each sequence is one system.
        return self.parent.batch_dims - self.parent.causal

    @property
    def direction(self) -> Direction | None:
        return self.parent.direction

    @property
    def captured(self) -> Leaves:  # type: ignore[override]
        return self.parent.captured

    @property
    def batched_prefix(self) -> int:  # type: ignore[override]
        return 2 * self.leaves + self.parent.batched_prefix

    def identity(self) -> Identity:
        return self.parent.identity() + Identity((type(self), self.leaves))

    def small(self, z: Leaves) -> bool:
        return self.parent.small(z)

    @abstractmethod
    def operator_at(self, z: Leaves, parent_args: Leaves) -> tuple[Product, Product]:
        """The operator and its transpose."""

    def constant(self, args: Leaves) -> Leaves:
        """The constant, taken from the arguments."""
        return Packed.of(args, self.leaves).constant

    def evaluate(self, z: Leaves, args: Leaves) -> Leaves:
        return self.bind(args).function(z)

    def bind(self, args: Leaves) -> Bound:
        packed = Packed.of(args, self.leaves)
        operator, transpose = self.operator_at(packed.z, packed.args)

        def function(z: Leaves) -> Leaves:
            return tuple(p + c for p, c in zip(operator(z), packed.constant, strict=True))

        return Bound(function, operator, transpose)

    def vmapped(self, mapped: tuple[bool, ...], randomness: str) -> Equation:
        return replace(self, parent=self.parent.vmapped(mapped[2 * self.leaves :], randomness))


@dataclass(frozen=True)
class AdjointEquation(DerivedEquation):
    """`u = Jᵀu + z̄` for a fixed point, `Jᵀu + z̄ = 0` for a root."""

    @property
    def described(self) -> str:  # type: ignore[override]
        return f"the adjoint of {self.parent.described}"

    @property
    def direction(self) -> Direction | None:
        found = self.parent.direction
        if found is None:
            return None
        return "backward" if found == "forward" else "forward"

    @property
    def traceable(self) -> bool:
        return self.parent.traceable and not isinstance(self.parent, DerivedEquation)

    def operator_at(self, z: Leaves, parent_args: Leaves) -> tuple[Product, Product]:
        back = self.parent.pullback_z(z, parent_args)[1]
        return back, at_first_use(lambda v: transposed(back, v))


@dataclass(frozen=True)
class TangentEquation(DerivedEquation):
    """`ż = J ż + ḟ` for a fixed point, `J ż + Ḟ = 0` for a root."""

    @property
    def described(self) -> str:  # type: ignore[override]
        return f"the tangent of {self.parent.described}"

    def operator_at(self, z: Leaves, parent_args: Leaves) -> tuple[Product, Product]:
        forward = self.parent.pushforward_z(z, parent_args)[1]
        return forward, at_first_use(lambda u: self.parent.pullback_z(z, parent_args)[1])
