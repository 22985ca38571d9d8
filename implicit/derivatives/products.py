"""Derivatives of flat systems from what the caller gives: matrices, sparse matrices, products, patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...solvers.interface.derivative import Derivative
from ..equations.layout import Layout, Leaves

if TYPE_CHECKING:
    from ...solvers.linear.sparse_pattern import SparsePattern


@dataclass(frozen=True)
class Matrices:
    """All Jacobians as dense matrices, `(batch, n, n)`."""

    matrices: Tensor
    columns: ClassVar[int] = 0

    def jvp(self, v: Tensor) -> Tensor:
        return torch.bmm(self.matrices, v.unsqueeze(2)).squeeze(2)

    def vjp(self, u: Tensor) -> Tensor:
        return torch.bmm(u.unsqueeze(1), self.matrices).squeeze(1)

    def jacobian(self, like: Tensor) -> Tensor:
        return self.matrices.to(like)


@dataclass(frozen=True)
class SparseMatrix:
    """The Jacobian of one system as a sparse matrix, `(n, n)`."""

    matrix: Tensor
    columns: ClassVar[int] = 0

    def jvp(self, v: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix, v.mT).mT

    def vjp(self, u: Tensor) -> Tensor:
        return torch.sparse.mm(self.matrix.t(), u.mT).mT

    def jacobian(self, like: Tensor) -> Tensor:
        return self.matrix.to_dense().to(like).unsqueeze(0)


@dataclass(frozen=True)
class Products:
    """Products with the Jacobians, and with their transposes, by functions of tensors like the unknown's."""

    product: Callable[[Any], Any]
    transposed: Callable[[Any], Any]
    layout: Layout
    build: Callable[[Leaves], Any]
    leaves_of: Callable[[Any, Leaves], Leaves]

    def jvp(self, v: Tensor) -> Tensor:
        return self._applied(self.product, v)

    def vjp(self, u: Tensor) -> Tensor:
        return self._applied(self.transposed, u)

    def _applied(self, function: Callable[[Any], Any], v: Tensor) -> Tensor:
        leaves = self.layout.unflatten(v)
        return self.layout.flatten(self.leaves_of(function(self.build(leaves)), leaves))

    def jacobian(self, like: Tensor) -> Tensor:
        units = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        columns = [self.jvp(unit.expand_as(like)) for unit in units]
        return torch.stack(columns, dim=2) if columns else like.new_zeros(*like.shape, 0)


@dataclass(frozen=True)
class Coloured:
    """A derivative whose matrices have a known pattern: one product for each colour gives all entries."""

    inner: Derivative
    pattern: SparsePattern

    @property
    def columns(self) -> int:
        return getattr(self.inner, "columns", self.pattern.products)

    def jvp(self, v: Tensor) -> Tensor:
        return self.inner.jvp(v)

    def vjp(self, u: Tensor) -> Tensor:
        return self.inner.vjp(u)

    def jacobian(self, like: Tensor) -> Tensor:
        if self.columns == 0:
            return self.inner.jacobian(like)
        pattern = self.pattern
        matrices = like.new_zeros(*like.shape, like.shape[1])

        def along(direction: np.ndarray) -> Tensor:
            return torch.from_numpy(direction).to(like).expand_as(like)

        sums = [self.inner.jvp(along(direction)) for direction in pattern.directions]
        sums += [self.inner.vjp(along(direction)) for direction in pattern.transposed_directions]
        if sums:
            place, number = map(torch.from_numpy, pattern.sources)
            found = torch.stack(sums, dim=2)[:, place, number]
            matrices[:, torch.from_numpy(pattern.rows), torch.from_numpy(pattern.columns)] = (
                found.to(like)
            )
        return matrices

    def explained(self, like: Tensor, noise: float) -> bool:
        """True if the pattern explains a product with a vector of random signs and sizes."""
        from ...solvers.linear.sparse_pattern import probe_vector

        probe = probe_vector(self.pattern.n, np.dtype("d"))

        def on_arrays(product: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
            def applied(vector: np.ndarray) -> np.ndarray:
                with torch.no_grad():
                    same = torch.from_numpy(vector).to(like).expand_as(like)
                    value: np.ndarray = product(same).detach().cpu().double().numpy()
                return value

            return applied

        product = on_arrays(self.inner.jvp)
        entries = self.pattern.entries(product, np.dtype("d"), on_arrays(self.inner.vjp))
        return self.pattern.explains(entries, probe, product(probe), noise)


def derivative_of(
    described: str,
    found: Any,
    z: Tensor,
    layout: Layout,
    build: Callable[[Leaves], Any],
    leaves_of: Callable[[Any, Leaves], Leaves],
) -> Derivative:
    """The derivative at flat `z`, from what the caller's function returned there.

    Raises:
        TypeError: It is neither a matrix nor a pair of products.
        ValueError: A matrix has the wrong shape.
    """
    if isinstance(found, tuple) and len(found) == 2 and all(map(callable, found)):
        return Products(*found, layout, build, leaves_of)
    if hasattr(found, "tocoo"):
        places = found.tocoo()
        indices = torch.from_numpy(np.stack((places.row, places.col)).astype(np.int64))
        found = torch.sparse_coo_tensor(
            indices, torch.from_numpy(places.data), places.shape, check_invariants=True
        )
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"jacobian of {described} must return a matrix (tensor, array, sparse matrix) or a pair of "
            f"functions, v ↦ J v and u ↦ Jᵀ u, but returned {type(found).__name__}: {found!r}"
        )
    batch, n = z.shape
    if layout.has_complex:
        raise TypeError(
            f"jacobian of {described}: of a complex unknown give a pair of functions, v ↦ J v and u ↦ Jᵀ u"
        )
    if found.layout is not torch.strided:
        if tuple(found.shape) != (n, n) or batch != 1:
            raise ValueError(
                f"jacobian of {described}: a sparse matrix is that of one system, here ({n}, {n}) and one "
                f"of {batch} systems, but it has shape {tuple(found.shape)}; of more systems give dense "
                "matrices or a pair of functions"
            )
        return SparseMatrix(found.to_sparse_coo().to(z))
    shape, own = tuple(found.shape), tuple(layout.batch_shape)
    if found.numel() != batch * n * n or shape[: len(own)] != own:
        raise ValueError(
            f"jacobian of {described} must have shape {(*own, n, n)}, the batch axes and a row for each "
            f"equation, but has {shape}"
        )
    return Matrices(found.reshape(batch, n, n).to(z))
