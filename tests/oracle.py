"""Independent references, with no code of the package: every formula that several tests compare with."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Function = Callable[..., Tensor]
Array = NDArray[np.float64]
Kind = Literal["symmetric", "mildly non-normal", "rotations"]
KINDS: tuple[Kind, ...] = ("symmetric", "mildly non-normal", "rotations")


# --- Equations -----------------------------------------------------------------------------------


def tanh_map(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    """`tanh(W z + x)` for rows `z` and `x` that share `W`."""
    return torch.tanh(z @ W.mT + x)


def iteration_matrix(kind: Kind, n: int, radius: float, seed: int) -> Array:
    """A matrix of spectral radius `radius`.

    The non-normal one has the eigenvalues of the symmetric one, and a basis of condition number 10.
    """
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((n, n)))[0]
    if kind == "rotations":
        block = np.zeros((n, n))
        angles = generator.uniform(0.1, np.pi - 0.1, n // 2)
        for i, angle in enumerate(angles):
            c, s = radius * np.cos(angle), radius * np.sin(angle)
            block[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
        if n % 2:
            block[-1, -1] = radius
        return basis @ block @ basis.T
    values = generator.uniform(-radius, radius, n)
    values[0] = radius
    if kind == "symmetric":
        return basis @ np.diag(values) @ basis.T
    other = np.linalg.qr(generator.standard_normal((n, n)))[0]
    basis = basis @ np.diag(np.geomspace(1, 10, n)) @ other
    return basis @ np.diag(values) @ np.linalg.inv(basis)


# --- Solutions and derivatives -------------------------------------------------------------------


def newton_step(F: Function, z: Tensor, *args: Tensor) -> Tensor:
    """One undamped Newton step for `F(z, *args) = 0` from one flat `z`, by LU; differentiable."""
    return z - torch.linalg.solve(torch.func.jacrev(F)(z, *args), F(z, *args))


def newton(F: Function, z: Tensor, *args: Tensor, steps: int = 15) -> Tensor:
    """The root of `F(z, *args)` for one flat `z`, to rounding."""
    z = z.detach()
    constant = [arg.detach() for arg in args]
    for _ in range(steps):
        z = newton_step(F, z, *constant)
    return z


def differentiable_root(F: Function, z: Tensor, *args: Tensor) -> Tensor:
    """The root of `F` near `z` as a differentiable function of `args`, exact to third order.

    Each Newton step from an exact root doubles the number of derivatives that are exact (plus one):
    two steps give derivatives up to order three.
    """
    for _ in range(2):
        z = newton_step(F, z, *args)
    return z


def relative(found: Tensor, expected: Tensor) -> float:
    """The error of `found` relative to the size of what is expected."""
    return float((found - expected).norm() / expected.norm())


def implicit_gradient(f: Function, z: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    """The gradient in `x` of `⟨cotangent, z⟩` at the fixed point `z` of `f(·, x)`.

    By the implicit function theorem with dense matrices: `(∂f/∂x)ᵀ (I − ∂f/∂z)⁻ᵀ` times the cotangent.
    """
    z, x, n = z.detach(), x.detach(), z.numel()
    by_z, by_x = torch.func.jacrev(f, argnums=(0, 1))(z, x)
    equation = torch.eye(n).to(z) - by_z.reshape(n, n)
    u = torch.linalg.solve(equation.mT, cotangent.detach().reshape(n))
    return (u @ by_x.reshape(n, x.numel())).reshape(x.shape)
