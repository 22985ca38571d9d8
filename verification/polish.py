"""Root behind a layer's output, found to rounding by Newton's method in float64.

Finite differences of a polished output see the root, not the truncated iteration that found it. The
distance between the implicit gradients at both is the error of the solver, not of the derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .equations import JacobianProducts, KnownEquation
from .linear import Inverse, inverse_at

_EPS = torch.finfo(torch.float64).eps
_NEWTON_STEPS = 30
_CHORD_STEPS = 60
# Once steps stop shrinking, steps below this relative size are rounding; larger steps have not converged.
_AT_ROUNDING = 1e-9


class PolishError(ArithmeticError):
    """Newton's method found no root near the layer's output."""


class Root:
    """The root near a layer's output, and its derivatives by the implicit function theorem.

    `F(z, x) = 0` gives `dz/dx = −A⁻¹ ∂F/∂x` with `A = ∂F/∂z`, hence the gradient of `⟨w, z⟩` is
    `−(∂F/∂x)ᵀ A⁻ᵀ w` (Krantz & Parks 2002).
    """

    def __init__(
        self,
        equation: KnownEquation,
        z: Tensor,
        generator: torch.Generator,
        values: Sequence[Tensor] | None = None,
    ) -> None:
        self.equation = equation
        self.z = z
        self.products: JacobianProducts = equation.products_at(z, values)
        self.inverse: Inverse = inverse_at(equation, self.products, generator)

    def gradient(self, w: Tensor) -> tuple[Tensor, ...]:
        """The gradients of `⟨w, z⟩` in every slot."""
        u = self.inverse.solve_transposed(w)
        return tuple(-gradient for gradient in self.products.pullback_slots(u))

    def newton_step(self) -> Tensor:
        return self.inverse.solve(self.products.value)

    def moved(self, values: Sequence[Tensor]) -> Tensor:
        """The root for other slots, by chord steps (Newton's with this point's Jacobian).

        Raises:
            PolishError: The steps do not converge, since the slots are too far away.
        """
        z, before = self.z, torch.inf
        for _ in range(_CHORD_STEPS):
            step = self.inverse.solve(self.equation.value(z, values))
            size, scale = float(step.abs().max()), float(z.abs().max())
            if not size < torch.inf or (size > 2 * before and size > _AT_ROUNDING * scale):
                break
            z = z - step
            if size <= _EPS * scale or (size > 0.5 * before and size <= _AT_ROUNDING * scale):
                return z
            before = size
        raise PolishError("chord steps did not converge")


def relative_distance(a: Tensor, b: Tensor) -> float:
    """The distance of two vectors relative to the length of the second."""
    return float((a - b).norm() / b.norm().clamp(min=1e-300))


def polish(equation: KnownEquation, z: Tensor, generator: torch.Generator) -> tuple[Root, Root]:
    """The implicit derivatives at `z` itself and at the root that Newton's method finds from it.

    Raises:
        SingularError: The Jacobian is singular on the way.
        PolishError: The steps do not shrink to rounding.
    """
    own = here = Root(equation, z, generator)
    before = torch.inf
    for _ in range(_NEWTON_STEPS):
        step = here.newton_step()
        size, scale = float(step.abs().max()), float(here.z.abs().max())
        if not size < torch.inf:
            break
        if size <= 4 * _EPS * scale or (size >= 0.25 * before and size <= _AT_ROUNDING * scale):
            return own, here
        before = size
        here = Root(equation, here.z - step, generator)
    raise PolishError(
        "Newton's method found no root near the layer's output: does it solve this equation?"
    )
