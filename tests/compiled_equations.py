"""Equations for Numba, with closed forms in NumPy: shared, so that each is compiled once."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from implicitly import NumbaEquation
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


@numba.njit
def kepler(z: Any, p: Any, out: Any) -> None:
    """`E − e sin E − M` with `p = (M, e)`."""
    out[0] = z[0] - p[1] * np.sin(z[0]) - p[0]


@numba.njit
def kepler_by_z(z: Any, p: Any, out: Any) -> None:
    out[0, 0] = 1 - p[1] * np.cos(z[0])


@numba.njit
def kepler_by_p(z: Any, p: Any, out: Any) -> None:
    out[0, 0] = -1
    out[0, 1] = -np.sin(z[0])


@numba.njit
def coupled(z: Any, p: Any, out: Any) -> None:
    """Three equations in three unknowns, with three parameters and a unit of `z` and one of `F`."""
    x, y, w = z[0] / p[3], z[1] / p[3], z[2] / p[3]
    out[0] = p[4] * (x + p[0] * y * w - p[1])
    out[1] = p[4] * (y + np.exp(-x) - p[2])
    out[2] = p[4] * (w * w + x * y + w - 2 * p[0])


def kepler_systems(batch: int, seed: int, largest: float = 0.99) -> tuple[Tensor, Tensor]:
    """Starts (Danby 1987) and parameters `(M, e)` of random orbits."""
    generator = np.random.default_rng(seed)
    mean, eccentricity = (
        generator.uniform(0, 2 * np.pi, batch),
        generator.uniform(0, largest, batch),
    )
    start = mean + 0.85 * eccentricity * np.sign(np.sin(mean))
    p = np.stack([mean, eccentricity], axis=1)
    return torch.from_numpy(start[:, None]), torch.from_numpy(p)


def coupled_systems(batch: int, seed: int, unknown: float = 1.0, equation: float = 1.0) -> Any:
    """Starts and parameters of `coupled`."""
    generator = np.random.default_rng(seed)
    p = np.hstack(
        [generator.uniform(0.2, 0.9, (batch, 3)), np.full((batch, 2), [unknown, equation])]
    )
    return torch.full((batch, 3), 0.5 * unknown, dtype=torch.float64), torch.from_numpy(p)


def coupled_jacobians(z: Array, p: Array) -> tuple[Array, Array]:
    """`∂F/∂z` and `∂F/∂p` of `coupled` by the first three parameters, in units of one."""
    (x, y, w), zero, one = z.T, np.zeros(len(z)), np.ones(len(z))
    by_z = [
        [one, p[:, 0] * w, p[:, 0] * y],
        [-np.exp(-x), one, zero],
        [y, x, 2 * w + 1],
    ]
    by_p = [[y * w, -one, zero], [zero, zero, -one], [-2 * one, zero, zero]]
    return np.moveaxis(np.array(by_z), 2, 0), np.moveaxis(np.array(by_p), 2, 0)


KEPLER = NumbaEquation(kepler, n=1)
KEPLER_WITH_JACOBIANS = NumbaEquation(
    kepler, n=1, jacobian=kepler_by_z, parameter_jacobian=kepler_by_p
)
COUPLED = NumbaEquation(coupled, n=3)
