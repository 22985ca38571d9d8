"""Solves with `A = ∂F/∂z` and its transpose: independent blocks, one dense matrix, or Krylov.

Blocks are assembled as if the rows of the leading axis were independent systems, and used only if
they reproduce a product with `A` that took no part in assembling them. GMRES reports its failures.

The package has linear solvers and a test of block structure of its own. They are repeated here on
purpose: an oracle must not share code with the layers that it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..options.libraries import needs
from .equations import JacobianProducts, KnownEquation

with needs("scipy", "verification of gradients"):
    from scipy.sparse.linalg import LinearOperator, gmres

DENSE_LIMIT = 2048
_EPS = torch.finfo(torch.float64).eps


class Inverse(Protocol):
    """Products with `A⁻¹` and `A⁻ᵀ` on flat vectors."""

    @property
    def condition(self) -> float | None:
        """The largest condition number of the blocks of `A` in the 1-norm, if known."""
        ...

    @property
    def rate(self) -> float | None:
        """The spectral radius of `I − A`, or of `I + A` if that is smaller, if known."""
        ...

    def solve(self, b: Tensor) -> Tensor: ...

    def solve_transposed(self, b: Tensor) -> Tensor: ...


class SingularError(ArithmeticError):
    """`∂F/∂z` is singular to working precision: the solution has no derivative here."""


@dataclass(frozen=True)
class Blocks:
    """Factorised blocks, `(systems, n, n)`, of a block-diagonal `A`.

    Attributes:
        order: Flat positions of the unknowns of each system, `(systems, n)`.
    """

    inverse: Tensor
    matrix: Tensor
    order: Tensor
    condition: float | None

    @property
    def rate(self) -> float:
        eigenvalues = torch.linalg.eigvals(self.matrix)
        return min(float((1 + sign * eigenvalues).abs().max()) for sign in (1, -1))

    def solve(self, b: Tensor) -> Tensor:
        return self._apply(self.matrix, self.inverse, b)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._apply(self.matrix.mT, self.inverse.mT, b)

    def _apply(self, matrix: Tensor, inverse: Tensor, b: Tensor) -> Tensor:
        rows = b[self.order].unsqueeze(-1)
        x = inverse @ rows
        # One step of refinement, so that the explicit inverse costs no digits (Higham 2002, ch. 12).
        x = x + inverse @ (rows - matrix @ x)
        found = torch.empty_like(b)
        found[self.order] = x.squeeze(-1)
        return found


@dataclass(frozen=True)
class Krylov:
    """Restarted GMRES on products with `A` and `Aᵀ`."""

    products: JacobianProducts
    size: int
    condition: float | None = None
    rate: float | None = None

    def solve(self, b: Tensor) -> Tensor:
        return self._solve(self.products.pushforward_z, b)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._solve(self.products.pullback_z, b)

    def _solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        def apply(vector: np.ndarray) -> np.ndarray:
            return product(torch.from_numpy(vector.reshape(-1))).numpy()

        operator = LinearOperator((self.size, self.size), matvec=apply, dtype=float)
        found, failed = gmres(operator, b.numpy(), rtol=1e-13, atol=0.0, restart=80, maxiter=40)
        if failed:
            raise SingularError("GMRES did not solve the linear equation to 1e-13")
        return torch.from_numpy(found)


def inverse_at(
    equation: KnownEquation, products: JacobianProducts, generator: torch.Generator
) -> Inverse:
    """The inverse of `∂F/∂z` at a point.

    Raises:
        SingularError: It is singular to working precision.
    """
    size = products.value.numel()
    check = torch.randn(size, generator=generator, dtype=torch.float64)
    product = products.pullback_z(check)
    batch = equation.leading
    if batch is not None and batch > 1 and size // batch <= DENSE_LIMIT:
        order = _rows(equation, batch)
        blocks = _assemble(products, order)
        mapped = torch.empty_like(check)
        mapped[order] = (blocks.mT @ check[order].unsqueeze(-1)).squeeze(-1)
        scale = (blocks.abs().mT @ check[order].abs().unsqueeze(-1)).max()
        if bool((mapped - product).abs().max() <= 1e3 * _EPS * scale):
            return _factorised(blocks, order)
    if size <= DENSE_LIMIT:
        order = torch.arange(size).unsqueeze(0)
        return _factorised(_assemble(products, order), order)
    return Krylov(products, size)


def _rows(equation: KnownEquation, batch: int) -> Tensor:
    """Flat positions by row of the leading axis."""
    size = int(sum(equation.sizes))
    positions = equation.parts(torch.arange(size, dtype=torch.float64))
    return torch.cat([part.reshape(batch, -1) for part in positions], dim=1).long()


def _assemble(products: JacobianProducts, order: Tensor) -> Tensor:
    n = order.shape[1]
    units = torch.zeros(n, products.value.numel(), dtype=torch.float64)
    units.scatter_(1, order.mT, 1.0)
    return products.pullback_z(units)[:, order].permute(1, 0, 2)


def _factorised(matrix: Tensor, order: Tensor) -> Blocks:
    if not bool(torch.isfinite(matrix).all()):
        raise SingularError("∂F/∂z is not finite")
    inverse, info = torch.linalg.inv_ex(matrix)
    if bool(info.any()) or not bool(torch.isfinite(inverse).all()):
        raise SingularError("∂F/∂z is singular")
    norms = torch.linalg.matrix_norm(matrix, 1) * torch.linalg.matrix_norm(inverse, 1)
    condition = float(norms.max()) if norms.numel() else 1.0
    if condition * _EPS > 1e-4:
        raise SingularError(f"∂F/∂z is nearly singular: its condition number is {condition:.0e}")
    return Blocks(inverse, matrix, order, condition)
