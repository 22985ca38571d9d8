"""Compiled equations that go wrong in many ways, each chosen by a parameter."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from implicitly import (
    NumbaEquation,
    NumbaRoot,
    Stopping,
    root,
)
from torch import Tensor

EPS = float(np.finfo(np.float64).eps)
TIGHT = Stopping(rtol=0.0, atol=1e-12)


def solved(equation: Any, z0: Tensor, p: Tensor, **options: Any) -> Any:
    options = {"solver": NumbaRoot(), "stopping": TIGHT, "batch_dims": 1, **options}
    return root(equation, z0, p, **options)


@numba.njit
def menu(z: Any, p: Any, out: Any) -> None:
    """What can go wrong, and what a solver should master, chosen by the first parameter."""
    x, y = z[0], z[1]
    out[0], out[1] = x - p[1], y - 2 * x
    if p[0] == 1:
        raise ValueError
    if p[0] == 2:
        out[0] = np.nan
    if p[0] == 3:  # No root.
        out[0] = x * x + 1
    if p[0] == 4:  # Does not depend on z.
        out[0], out[1] = 1.0, 2.0
    if p[0] == 5:  # Singular at the start, where x = 0.
        out[0], out[1] = x * x + y - 1, x * y
    if p[0] == 6:  # Full Newton steps diverge.
        out[0], out[1] = np.arctan(x), y - x
    if p[0] == 7:  # Raises only where a full step leads.
        if x < 0:
            raise ValueError
        out[0] = np.sqrt(x) - 0.1
    if p[0] == 8:
        out[0] = x * x
    if p[0] == 9:
        out[1] = y * y - 4


MENU = NumbaEquation(menu, n=2)


@numba.njit
def scalar_menu(z: Any, p: Any, out: Any) -> None:
    x = z[0]
    out[0] = x - p[1]
    if p[0] == 1:
        raise ValueError
    if p[0] == 2:
        out[0] = np.nan
    if p[0] == 3:
        out[0] = x * x + 1
    if p[0] == 4:
        out[0] = 1.0
    if p[0] == 6:
        out[0] = np.arctan(x)
    if p[0] == 7:
        if x < 0:
            raise ValueError
        out[0] = np.sqrt(x) - 0.1
    if p[0] == 9:  # In units of z and of F.
        u = x / p[2]
        out[0] = p[3] * (u + u * u * u - p[1])


SCALAR_MENU = NumbaEquation(scalar_menu, n=1)


def ordered(kinds: list[int], starts: list[float], n: int) -> tuple[Tensor, Tensor]:
    z0 = torch.tensor(starts, dtype=torch.float64).unsqueeze(1).repeat(1, n)
    return z0, torch.tensor([[kind, 3.0] for kind in kinds], dtype=torch.float64)
