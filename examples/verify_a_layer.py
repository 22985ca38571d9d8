"""An autograd function with a mistake in its backward pass: found, named, mended.

The layer solves `z = tanh(W z + x)`, and its author differentiated the equation by hand. The first version
solves the adjoint equation with the Jacobian where its transpose belongs: right for a symmetric `W`, as in
the author's own test, and wrong for others.
"""

from typing import Any

import torch
from implicitly.verification import verify
from torch import Tensor


def residual(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    return z - torch.tanh(z @ W.mT + x)


def layer_with(transposed: bool) -> Any:
    class Equilibrium(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, W: Tensor, x: Tensor) -> Tensor:
            z = torch.zeros_like(x)
            for _ in range(200):
                z = torch.tanh(z @ W.mT + x)
            ctx.save_for_backward(z, W)
            return z

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor]:
            z, W = ctx.saved_tensors
            slope = 1 - z.square()
            A = torch.eye(len(W), dtype=W.dtype) - slope.unsqueeze(-1) * W
            u = torch.linalg.solve(A.mT if transposed else A, cotangents[0])
            return (slope * u).mT @ z, slope * u

    return Equilibrium.apply


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    W = (0.8 * torch.linalg.qr(draw).Q).requires_grad_()
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()

    report = verify(layer_with(transposed=False), (W, x), residual=residual)
    print(report)
    print()
    mended = verify(layer_with(transposed=True), (W, x), residual=residual, effort="full")
    print(f"mended: {mended.verdict.name}")
    print(f"errors of {mended.detectable:.0e} of a derivative would have been seen")


if __name__ == "__main__":
    main()
