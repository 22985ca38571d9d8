"""Starts at which a derivative is not finite, as that of `|z|^1.85` at zero by automatic differentiation."""

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
    """The systems with a residual that is finite at `z` and a Jacobian that is not; one product."""
    try:
        linearization = problem.linearization(z)
        product = linearization.jvp(torch.ones_like(z))
    except NoDerivativeError:
        return np.zeros(z.shape[0], dtype=bool)
    residual = linearization.residual
    assert residual is not None  # for the type checker: the problem is not linear
    edge = torch.isfinite(residual).all(dim=1) & ~torch.isfinite(product).all(dim=1)
    return np.asarray(edge.detach().cpu().numpy())


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
