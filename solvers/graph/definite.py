"""Small definite equations, eliminated entry by entry: one loop over the batch for a compiler."""

from __future__ import annotations

import torch
from torch import Tensor


def definite(gram: Tensor, right: Tensor, active: Tensor, relative: float) -> Tensor:
    """The `x` with `(G + relative · diag G) x = b` over the `active` rows, and 0 elsewhere.

    Rows are scaled to a unit diagonal. A pivot that rounding has taken below the increase of the diagonal is
    replaced by it.

    Args:
        gram: `G`, symmetric and semidefinite, `(batch, m, m)`.
        right: `b`, `(batch, m)`.
        active: Boolean, `(batch, m)`.
        relative: The relative increase of the diagonal.

    Source: Golub & Van Loan 2013, section 4.1.2 (LDLᵀ).

    Examples:
        >>> gram = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
        >>> everything = torch.ones(1, 2, dtype=torch.bool)
        >>> definite(gram, torch.tensor([[3.0, 3.0]]), everything, 1e-6).round(decimals=4).tolist()
        [[1.0, 1.0]]
    """
    m = gram.shape[1]
    on = active.unbind(1)
    entries = [row.unbind(1) for row in gram.unbind(1)]
    scales = [
        torch.where(on[i] & (entries[i][i] > 0), entries[i][i], 1.0).rsqrt() for i in range(m)
    ]
    b = [torch.where(on[i], right[:, i] * scales[i], 0.0) for i in range(m)]
    lower: list[list[Tensor]] = []
    pivots: list[Tensor] = []
    for i in range(m):
        row: list[Tensor] = []
        for j in range(i):
            value = torch.where(on[i] & on[j], entries[i][j] * scales[i] * scales[j], 0.0)
            for k in range(j):
                value = value - row[k] * lower[j][k] * pivots[k]
            row.append(value / pivots[j])
        pivot = torch.where(on[i], entries[i][i] * scales[i] * scales[i] + relative, 1.0)
        for k in range(i):
            pivot = pivot - row[k] * row[k] * pivots[k]
            b[i] = b[i] - row[k] * b[k]
        pivots.append(torch.clamp_min(pivot, relative))
        lower.append(row)
    x = [b[i] / pivots[i] for i in range(m)]
    for i in reversed(range(m)):
        for k in range(i + 1, m):
            x[i] = x[i] - lower[k][i] * x[k]
    return torch.stack([x[i] * scales[i] for i in range(m)], dim=1)
