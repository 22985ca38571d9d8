"""The nearest matrix of lower rank to a sum of outer products, without forming either."""

from __future__ import annotations

import torch
from torch import Tensor

# Each pass makes one more order of the derivatives exact.
_PASSES = 4


def reduce_rank(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest `Σ uᵢ vᵢᵀ` of at most `rank` terms, for every system of a batch.

    The sum `M = LᵀR`, with the `uᵢ` as rows of `L` and the `vᵢ` as rows of `R`, is projected on its
    leading right singular vectors. With `Rᵀ = Q T` they are `Q` times the eigenvectors of `T L Lᵀ Tᵀ`, a
    matrix with a row for each term of the sum. Singular values below `√eps` of the largest are ordered
    by rounding alone.

    The new `vᵢ` are orthonormal and the `uᵢ` orthogonal. Terms that are not finite are left out.
    Derivatives are exact up to the fourth order where the cut lies between distinct singular
    values; elsewhere (all zero, say) the projection counts as constant.

    Args:
        left: The `uᵢ` as rows, `(batch, terms, n)`.
        right: The `vᵢ`, alike.
        rank: Number of terms to keep.

    Returns:
        The new `uᵢ` and `vᵢ`, `(batch, min(rank, terms, n), n)`.

    Source: Eckart & Young 1936; van de Rotten & Verduyn Lunel 2005 (in Broyden's method); Stewart
    1973 (invariant subspaces by a Riccati equation).

    Examples:
        >>> left = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
        >>> right = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> u, v = reduce_rank(left, right, 1)
        >>> (u.mT @ v).abs().round(decimals=4).tolist()
        [[[0.0, 3.0], [0.0, 0.0]]]
    """
    rank = min(rank, *right.shape[1:])
    finite = left.isfinite().all(2, keepdim=True) & right.isfinite().all(2, keepdim=True)
    left, right = left.where(finite, 0.0), right.where(finite, 0.0)
    values, vectors, size = _right_singular_vectors(left.detach(), right.detach())
    leading = vectors[:, :, :rank]
    if torch.is_grad_enabled():
        leading = _moving(left / size, right, values, vectors, rank)
    images = torch.bmm(torch.bmm(right, leading).mT, left)
    if torch.is_grad_enabled():
        # The inverse Gram matrix of the leading vectors: the identity in value, but not in its derivatives.
        excess = torch.bmm(leading.mT, leading)
        excess = excess - excess.detach()
        images = images - torch.bmm(excess, images - torch.bmm(excess, images))
    return images, leading.mT


def _right_singular_vectors(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right singular vectors of `LᵀR` as columns, squares of its singular values over `size`, `size`.

    The squares are in descending order.
    """
    basis, triangle = torch.linalg.qr(right.mT)
    core = torch.bmm(triangle, left)
    # Squares of numbers of size one do not overflow or underflow.
    size = core.abs().amax(dim=(1, 2), keepdim=True)
    size = size.masked_fill(size == 0, 1.0)
    core = (core / size).nan_to_num(0.0, 0.0, 0.0)
    values, vectors = _eigenvectors(torch.bmm(core, core.mT))
    return values.flip(1), torch.bmm(basis, vectors.flip(2)), size


def _eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; of a system where LAPACK's iteration fails, zeros and unit vectors."""
    try:
        values, vectors = torch.linalg.eigh(matrices)
    except RuntimeError:  # LAPACK has found none of one system at least.
        if len(matrices) > 1:  # One system must not fail with another.
            each = [_eigenvectors(one) for one in matrices.split(1)]
            return torch.cat([v for v, _ in each]), torch.cat([u for _, u in each])
        identity = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
        return matrices.new_zeros(matrices.shape[:2]), identity.expand_as(matrices)
    return values, vectors


def _moving(left: Tensor, right: Tensor, values: Tensor, vectors: Tensor, rank: int) -> Tensor:
    """The leading right singular vectors with their derivatives, up to a rotation among them.

    Let `G = MᵀM`, `N` the leading vectors and `W` orthogonal to them. The span of `Z = N + W` is
    invariant if `G Z = Z NᵀG Z`, and at `W = 0` the derivative of the defect divides each of its
    components by a difference of eigenvalues.
    """
    leading, rest = vectors[:, :, :rank], vectors[:, :, rank:]
    top = values[:, None, :rank]
    gaps = top - values[:, rank:, None]
    rounding = values.shape[1] * torch.finfo(values.dtype).eps * values[:, None, :1]
    gaps = gaps.masked_fill(gaps <= rounding, torch.inf)
    beyond = top.masked_fill(top <= rounding, torch.inf)
    gram = torch.bmm(left, left.mT)
    moving = leading
    for _ in range(_PASSES):
        product = torch.bmm(right.mT, torch.bmm(gram, torch.bmm(right, moving)))
        defect = product - torch.bmm(moving, torch.bmm(leading.mT, product))
        defect = defect - defect.detach()
        inside = torch.bmm(rest.mT, defect)
        moving = moving + torch.bmm(rest, inside / gaps)
        moving = moving + (defect - torch.bmm(rest, inside)) / beyond
    return moving
