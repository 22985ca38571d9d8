"""The tangent at the start of a curve."""

from __future__ import annotations

import torch
from torch import Tensor

from .corrector import Corrector
from .special import spread

# A part of a tangent below this is none: the curve starts at a fold.
_VERTICAL = 1e-6
_REFINEMENTS = 3


def first_tangent(corrector: Corrector, w: Tensor, way: float) -> Tensor | None:
    """The tangent of the curve at `w` along which the parameter changes by the sign of `way`.

    At a fold it does not change: there the largest entry of the unknown does. `None` where the Jacobian has
    not full rank, so that there is no single tangent, or is not finite.
    """
    found = corrector.linearized(w)
    if isinstance(found, str):
        return None
    _, jacobian = found
    last = torch.zeros_like(w)
    last[-1] = 1
    tangent = spread(w)
    for _ in range(_REFINEMENTS):
        factors = jacobian.bordered(tangent.unsqueeze(0))
        if factors.sign == 0:
            return None
        tangent = factors.solve(last)
        if not bool(torch.isfinite(tangent).all()):
            return None
        tangent = tangent / torch.linalg.vector_norm(tangent)
    lead = tangent[-1] if abs(float(tangent[-1])) > _VERTICAL else tangent[tangent.abs().argmax()]
    return tangent * float(torch.sign(lead)) * way
