"""Penalties that keep an equilibrium easy to find in training, and the spectral radius, which measures it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .output import Piece

_STEPS = 12


def jacobian_penalty(piece: Piece, samples: int = 1) -> Tensor:
    """Estimate of `‖∂f/∂z‖²_F / d` at the states found, differentiable in the parameters.

    `‖εᵀ ∂f/∂z‖² / (M d)` with `ε ~ N(0, I)`, where `d` is the number of entries of all states. The states
    count as constant.

    Args:
        piece: A piece of an output.
        samples: Number of noise vectors, `M`.

    Source: Bai, Koltun & Kolter 2021 (arXiv:2106.14342), equation 6.

    Examples:
        >>> import implicitly
        >>> from implicitly.models import Piece
        >>> a = torch.tensor(0.5, requires_grad=True)
        >>> solution = implicitly.fixed_point(lambda z: a * z + 1, torch.ones(1, 4, 3))
        >>> piece = Piece(solution.value, lambda z: a * z + 1)
        >>> 0.02 < jacobian_penalty(piece, samples=9).item() < 1.0  # a² is 0.25
        True
    """
    z = piece.value.detach().requires_grad_()
    with torch.enable_grad():
        image = piece.function(z)
        total = image.new_zeros(())
        for _ in range(samples):
            (product,) = torch.autograd.grad(image, z, torch.randn_like(image), create_graph=True)
            total = total + product.square().sum()
    return total / (samples * z.numel())


def residual_penalty(piece: Piece) -> Tensor:
    """Mean square of `f(z) − z` at the states found, differentiable in states and parameters.

    It is for states from iterations with a graph: it trains a network of a few layers to be near its
    equilibrium, so that further layers would change little.

    Args:
        piece: A piece of an output.

    Examples:
        >>> from implicitly.models import Piece
        >>> z = torch.ones(1, 4, 3, requires_grad=True)
        >>> round(residual_penalty(Piece(z, torch.cos)).item(), 3)  # (cos 1 − 1)²
        0.211
    """
    return (piece.function(piece.value) - piece.value).square().mean()


def spectral_radius(
    function: Callable[[Tensor], Tensor],
    z: Tensor,
    steps: int = _STEPS,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimate of the spectral radius of `∂f/∂z` for each sequence of a batch, `(batch,)`.

    It uses the power method. The last three vectors `v, Jv, J²v` give the roots of `J²v = a Jv + b v`
    in the sense of least squares: exact for a single dominating eigenvalue, for two of opposite sign,
    and for a complex pair, for which a Rayleigh quotient shows the real part alone.

    Args:
        function: The map; sequences must be independent of each other.
        z: Point of the Jacobian, `(batch, …)`.
        steps: Products with the Jacobian before the last two.
        generator: Random generator for the first vector.

    Source: Wilkinson 1965, chapter 9, section 13 (complex conjugate eigenvalues).

    Examples:
        >>> turn = torch.tensor([[0.0, -0.9], [0.9, 0.0]])  # eigenvalues ±0.9 i
        >>> round(float(spectral_radius(lambda z: z @ turn.mT, torch.zeros(1, 2))), 4)
        0.9
    """
    z = z.detach()
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device="cpu").to(z.device)

    def product(v: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (v,))[1].detach()

    def norms(v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v.flatten(1), dim=1)

    def normalised(v: Tensor) -> Tensor:
        shape = (-1, *(1,) * (v.ndim - 1))
        return v / norms(v).clamp_min(torch.finfo(v.dtype).tiny).reshape(shape)

    v = normalised(noise)
    for _ in range(steps):
        v = normalised(product(v))
    first = product(v)
    second = product(first)
    basis = torch.stack((first.flatten(1), v.flatten(1)), dim=2).double()
    # If both vectors are parallel, the least-norm solution has the same dominating root.
    a, b = (
        torch.linalg.lstsq(
            basis.cpu(), second.flatten(1).unsqueeze(2).double().cpu(), driver="gelsd"
        )
        .solution.squeeze(2)
        .unbind(1)
    )
    half = torch.complex(a / 2, torch.zeros_like(a))
    root = torch.sqrt(half.square() + b)
    return torch.maximum((half + root).abs(), (half - root).abs()).to(z.dtype)
