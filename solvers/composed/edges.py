"""Points at which a derivative is not finite, as that of `|z|^1.85` at zero by automatic differentiation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..interface.compiled_systems import NoDerivativeError
from ..interface.golden import golden_sequence
from ..interface.norms import rms
from ..interface.problem import Problem

# The distance of another start, relative to the size of the start.
_DISTANCE = 1e-3


def at_edge(problem: Problem, z: Tensor) -> np.ndarray:
    """The systems of a nonlinear problem with a residual that is finite at `z` and a Jacobian that is not."""
    finite, residual = _product(problem, z)
    if residual is None:
        return np.zeros(z.shape[0], dtype=bool)
    edge = torch.isfinite(residual).all(dim=1) & ~finite
    return np.asarray(edge.detach().cpu().numpy())


def derivative_not_finite(problem: Problem, z: Tensor) -> np.ndarray:
    """The systems whose Jacobian, or operator, is not finite at `z`, as far as a product shows it."""
    return np.asarray(~_product(problem, z)[0].detach().cpu().numpy())


def _product(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor | None]:
    """A mask of systems whose product with the Jacobian is finite, and the residual where it is known.

    The product with a Jacobian is that of the transpose, as backward passes take it: of `torch.where` over a
    branch that has no finite derivative that one is not finite, and the other is.
    """
    ones = torch.ones_like(z)
    try:
        linearization = problem.linearization(z)
        product = linearization.jvp(ones) if problem.linear else linearization.vjp(ones)
    except NoDerivativeError:
        return torch.ones_like(z[:, 0], dtype=torch.bool), None
    return torch.isfinite(product).all(dim=1), linearization.residual


def beside(z: Tensor) -> Tensor:
    """Points a thousandth of the size of `z` away; the size of a zero start is 1.

    Examples:
        >>> beside(torch.zeros(1, 2, dtype=torch.float64)).abs().max().item() <= 1e-3
        True
    """
    size = rms(z).unsqueeze(1)
    size = torch.where(size > 0, size, 1.0)
    draw = golden_sequence(z.shape[1], first=1, device=z.device).to(z.dtype)
    return z + _DISTANCE * size * (2 * draw - 1)
