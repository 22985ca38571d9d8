"""Hypothesis strategies for layers: they draw sizes and a seed, and build tensors from them.

Examples shrink towards one system of one unknown with contraction 0 in float64. Their representation is the
drawn numbers, which reproduce the tensors. The module needs the extra `verification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

Spectrum = Literal["symmetric", "rotation", "non-normal"]
SPECTRA: tuple[Spectrum, ...] = ("symmetric", "rotation", "non-normal")


@dataclass(frozen=True)
class ContractiveMap:
    """`f(z, x) = tanh(z Wᵀ + x)` with a weight of known Lipschitz constant.

    Attributes:
        batch: Independent systems.
        width: Unknowns of each.
        contraction: The 2-norm of `W`, a Lipschitz constant of `f` in `z`.
        spectrum: Eigenvalues of `W`: real, in complex pairs, or one Jordan block.
        dtype: Dtype of the tensors.
        seed: Seed of the tensors.

    Examples:
        >>> f = ContractiveMap(2, 3, 0.5, "rotation", torch.float64, 0)
        >>> f(f.x, f.x).shape, round(torch.linalg.matrix_norm(f.W, 2).item(), 6)
        (torch.Size([2, 3]), 0.5)
    """

    batch: int
    width: int
    contraction: float
    spectrum: Spectrum
    dtype: torch.dtype
    seed: int

    @property
    def W(self) -> Tensor:
        """The weight, `(width, width)`."""
        n, generator = self.width, torch.Generator().manual_seed(self.seed)
        draw = torch.randn(n, n, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(draw).Q
        values = torch.linspace(1.0, -0.5, n, dtype=torch.float64)
        if self.spectrum == "symmetric":
            matrix = basis @ torch.diag(values) @ basis.mT
        elif self.spectrum == "rotation":
            matrix = basis
        else:
            jordan = 0.5 * torch.eye(n, dtype=torch.float64)
            matrix = basis @ (jordan + jordan.roll(1, 1).triu(1)) @ basis.mT
        return (self.contraction * matrix / torch.linalg.matrix_norm(matrix, 2)).to(self.dtype)

    @property
    def x(self) -> Tensor:
        """The input, `(batch, width)`."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        x = torch.randn(self.batch, self.width, generator=generator, dtype=torch.float64)
        return x.to(self.dtype)

    def __call__(self, z: Tensor, x: Tensor, W: Tensor | None = None) -> Tensor:
        """`f(z, x)`, with its own weight or another."""
        return torch.tanh(z @ (self.W if W is None else W).mT + x)


def contractive_maps(
    *,
    max_batch: int = 4,
    max_width: int = 6,
    max_contraction: float = 0.9,
    dtypes: Sequence[torch.dtype] = (torch.float64,),
) -> st.SearchStrategy[ContractiveMap]:
    """Contractive maps with a given Lipschitz constant.

    Args:
        max_batch: Largest number of systems.
        max_width: Largest number of unknowns.
        max_contraction: Largest Lipschitz constant, below 1.
        dtypes: Dtypes to draw from, the simplest first.

    Raises:
        ValueError: `max_contraction` is not in `[0, 1)`.

    Examples:
        >>> contractive_maps(max_width=2)  # doctest: +ELLIPSIS
        builds(...)
    """
    if not 0 <= max_contraction < 1:
        raise ValueError(f"max_contraction must be in [0, 1), got {max_contraction!r}")
    return st.builds(
        ContractiveMap,
        batch=st.integers(1, max_batch),
        width=st.integers(1, max_width),
        contraction=st.integers(0, 20).map(lambda step: step / 20 * max_contraction),
        spectrum=st.sampled_from(SPECTRA),
        dtype=st.sampled_from(list(dtypes)),
        seed=st.integers(0, 2**16),
    )
