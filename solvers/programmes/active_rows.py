"""The linear equation of a quadratic programme whose active inequalities are known.

[Q  Aᵀ  Gᵀ] [z]   [−q]
[A  0   0 ] [y] = [ b]        G, h: the active rows
[G  0   0 ] [λ]   [ h]
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.programme import Programme


class ActiveRows(NamedTuple):
    """The active inequalities of each programme of a batch, first ones first.

    Attributes:
        order: Their numbers, `(batch, most)`, and numbers of others for programmes with fewer than `most`.
        mine: True for those that are active, `(batch, most)`.
    """

    order: Tensor
    mine: Tensor

    @staticmethod
    def of(active: Tensor) -> ActiveRows:
        """The rows of a mask, `(batch, m)`."""
        most = int(active.sum(dim=1).max()) if active.numel() else 0
        order = active.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return ActiveRows(order, active.gather(1, order))

    def of_vector(self, values: Tensor) -> Tensor:
        """Entries of `(batch, m)` for the active rows, zero beside them; `(batch, most)`."""
        return values.gather(1, self.order) * self.mine

    def of_matrix(self, matrices: Tensor) -> Tensor:
        """Rows of `(batch, m, n)`, zero beside the active ones; `(batch, most, n)`."""
        places = self.order.unsqueeze(2).expand(-1, -1, matrices.shape[2])
        return matrices.gather(1, places) * self.mine.unsqueeze(2)

    def spread(self, values: Tensor, m: int) -> Tensor:
        """Entries of the active rows among `m`, zeros elsewhere; `(batch, m)`."""
        return values.new_zeros(len(values), m).scatter(1, self.order, values * self.mine)

    def matrix(self, programme: Programme) -> Tensor:
        """The matrix; rows beside the active ones say that their multiplier is zero."""
        Q, _, A, _, G, _ = programme
        below = torch.cat((A, self.of_matrix(G)), dim=1)
        ends = torch.cat((A.new_zeros(A.shape[:2]), (~self.mine).to(Q)), dim=1)
        upper, lower = (
            torch.cat((Q, below.mT), dim=2),
            torch.cat((below, torch.diag_embed(ends)), dim=2),
        )
        return torch.cat((upper, lower), dim=1)
