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
    # In units in which both parts of the Jacobian are of one size.
    scales = torch.ones_like(w)
    along_z, along_parameter = jacobian.norms
    if along_z > 0 and along_parameter > 0:
        scales[-1] = along_z / along_parameter
    tangent = spread(w)
    for _ in range(_REFINEMENTS):
        factors = jacobian.bordered((tangent / scales).unsqueeze(0), scales)
        if factors.sign == 0:
            return None
        tangent = factors.solve(last) / scales
        if not bool(torch.isfinite(tangent).all()):
            return None
        tangent = tangent / torch.linalg.vector_norm(tangent)
    if abs(float(tangent[-1])) <= _VERTICAL:
        tangent[-1] = 0
    lead = tangent[-1] if tangent[-1] != 0 else tangent[tangent.abs().argmax()]
    return scales * tangent * float(torch.sign(lead)) * way
