"""Constants of line searches and trust regions: the decrease to reach, and the range of the next length."""

from __future__ import annotations

import torch
from torch import Tensor

# A step must lower the residual norm by this fraction of the decrease that Newton's model promises
# (Armijo 1966; Dennis & Schnabel 1983, section 6.3).
SUFFICIENT_DECREASE = 1e-4
# The minimum of a parabola is clamped to between these fractions of the last length (Dennis & Schnabel
# 1983, section 6.3.2).
SHORTEST_CUT, LONGEST_CUT = 0.1, 0.5


def trusted(fraction: Tensor) -> Tensor:
    """The minimum of a parabola as a fraction of the last length, clamped to its trusted range."""
    finite = torch.where(torch.isfinite(fraction), fraction, LONGEST_CUT)
    return finite.clamp(SHORTEST_CUT, LONGEST_CUT)
