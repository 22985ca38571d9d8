"""Kinds of equations of the boundary matrix: a module, its input, and the same map for plain iteration."""

from __future__ import annotations

import torch
from torch import Tensor

MATRIX = torch.tensor([[0.3, 0.0, -0.2], [0.0, 0.4, 0.0], [0.2, 0.0, 0.1]], dtype=torch.float64)
IMAGINARY = torch.tensor([[0.0, 0.2, 0.1], [-0.1, 0.0, 0.2], [0.0, 0.1, 0.0]], dtype=torch.float64)
START = torch.tensor([[0.3, -0.2, 0.8], [0.7, 0.5, -0.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64)


class Kind(torch.nn.Module):
    """`z ↦ w tanh(A z) + x`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.w = torch.nn.Parameter(torch.tensor(0.8, dtype=dtype))
        self.A = torch.nn.Parameter(MATRIX.to(dtype))

    @property
    def x(self) -> Tensor:
        return START.to(self.dtype)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.w * torch.tanh(z @ self.A.mT) + x

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        """The map for the reference; `solution` shows random numbers."""
        return self.forward(z, x)


class Complex(Kind):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.A = torch.nn.Parameter(torch.complex(MATRIX, IMAGINARY).to(dtype.to_complex()))

    @property
    def x(self) -> Tensor:
        return torch.complex(START, 0.5 * START.flip(1)).to(self.dtype.to_complex())

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.w * (torch.tanh(z @ self.A.mT) + 0.2 * z.conj()) + x


class SparseArgument(Kind):
    """The matrix is an argument of the call (see `CALLS`)."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        del self.A
        self.arguments = (MATRIX.to(dtype).to_sparse(),)

    def forward(self, z: Tensor, x: Tensor, matrix: Tensor) -> Tensor:  # type: ignore[override]
        return self.w * torch.tanh((matrix @ z.mT).mT) + x

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        return self.forward(z, x, MATRIX.to(self.dtype))


class SparseBuffer(Kind):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        del self.A
        self.register_buffer("A", MATRIX.to(dtype).to_sparse())

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.w * torch.tanh((self.A @ z.mT).mT) + x

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        return self.w * torch.tanh(z @ MATRIX.to(self.dtype).mT) + x


class InPlace(Kind):
    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        z.mul_(0.5)
        return self.w * torch.tanh((z @ self.A.mT).mul_(2)) + x

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        return Kind.forward(self, z, x)


class Random(Kind):
    """`z ↦ ½ w m tanh(z) + x` with a mask `m`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        del self.A
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * self.w * self.dropout(torch.tanh(z)) + x

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        found = (solution - self.x) / (0.5 * self.w.detach() * torch.tanh(solution))
        mask = 2 * (found > 1).to(found)
        assert torch.allclose(found, mask, atol=0.1), "not one mask"
        return 0.5 * self.w * mask * torch.tanh(z) + x


class Moving(Kind):
    """Batch statistics of `x`, which move once per call."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.norm = torch.nn.BatchNorm1d(3, dtype=dtype, affine=False)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.w * torch.tanh(z @ self.A.mT) + 0.5 * self.norm(x)

    def plain(self, z: Tensor, x: Tensor, solution: Tensor) -> Tensor:
        mean, centred = x.mean(-2, keepdim=True), x - x.mean(-2, keepdim=True)
        spread = centred.square().mean(-2, keepdim=True) + self.norm.eps
        assert mean.shape[-1] == 3
        return self.w * torch.tanh(z @ self.A.mT) + 0.5 * centred / spread.sqrt()


KINDS: dict[str, type[Kind]] = {
    "real": Kind,
    "complex": Complex,
    "sparse argument": SparseArgument,
    "sparse buffer": SparseBuffer,
    "in-place": InPlace,
    "random": Random,
    "moving buffers": Moving,
}
