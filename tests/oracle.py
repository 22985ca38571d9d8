"""Independent references: dense Newton iterations in PyTorch, with no code of the package."""

from collections.abc import Callable

import torch
from torch import Tensor

Residual = Callable[..., Tensor]


def newton(F: Residual, z: Tensor, *args: Tensor, steps: int = 15) -> Tensor:
    """The root of `F(z, *args)` for one flat `z`, by undamped Newton with LU, to rounding."""
    z = z.detach()
    constant = [arg.detach() for arg in args]
    for _ in range(steps):
        jacobian = torch.func.jacrev(F)(z, *constant)
        z = z - torch.linalg.solve(jacobian, F(z, *constant))
    return z


def differentiable_root(F: Residual, z: Tensor, *args: Tensor) -> Tensor:
    """The root of `F` near `z` as a differentiable function of `args`, exact to third order.

    Each Newton step from an exact root doubles the number of derivatives that are exact (plus one):
    two steps give derivatives up to order three.
    """
    for _ in range(2):
        z = z - torch.linalg.solve(torch.func.jacrev(F)(z, *args), F(z, *args))
    return z


def contraction(n: int, radius: float, kind: str, generator: torch.Generator) -> Tensor:
    """An `n × n` matrix of spectral radius `radius` with a prescribed kind of spectrum."""
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    values = radius * (2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1)
    values[0] = radius
    if kind == "symmetric":
        matrix = torch.diag(values)
    elif kind == "rotation":
        matrix = torch.zeros(n, n, dtype=torch.float64)
        for i in range(0, n - 1, 2):
            angle = 3.0 * torch.rand((), generator=generator, dtype=torch.float64)
            cosine, sine = radius * torch.cos(angle), radius * torch.sin(angle)
            matrix[i, i], matrix[i + 1, i + 1] = cosine, cosine
            matrix[i, i + 1], matrix[i + 1, i] = -sine, sine
        if n % 2:
            matrix[-1, -1] = radius
    elif kind == "non-normal":
        matrix = torch.diag(values) + radius * torch.diag(
            torch.ones(n - 1, dtype=torch.float64), diagonal=1
        )
    else:
        raise ValueError(kind)
    return basis @ matrix @ basis.T
