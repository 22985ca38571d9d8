"""The end of iterative refinement with the factors of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface.solution import Status


def refinement_ends(before: Tensor, residual: Tensor, size: Tensor, z: Tensor) -> Tensor:
    """`Status` codes of systems whose residual a step has not halved; 0 for the others.

    Args:
        before: Residual norms before the step, `(batch,)`.
        residual: The residual after it, `(batch, n)`.
        size: Norms of the matrices, `(batch,)`.
        z: The iterate after it, `(batch, n)`.

    Examples:
        >>> ones = torch.ones(2, 1)
        >>> refinement_ends(ones[:, 0], torch.tensor([[0.1], [0.9]]), ones[:, 0], ones).tolist()
        [0, 6]
    """
    after = torch.linalg.vector_norm(residual, dim=1)
    # Rounding errors of the products with the matrix are the limit of refinement.
    rounding = 100 * z.shape[1] * torch.finfo(z.dtype).eps * size
    at_rounding = after <= rounding * torch.linalg.vector_norm(z, dim=1)
    end_status = torch.where(at_rounding, int(Status.STALLED), int(Status.LINEAR_SOLVE_FAILED))
    return torch.where(after <= 0.5 * before, 0, end_status)
