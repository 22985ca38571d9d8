"""Combustion of propane in air at equilibrium."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem

_R = 10.0
_R5 = 0.193
_R6, _R7, _R9 = (k / math.sqrt(40) for k in (0.002597, 0.003448, 0.0002155))
_R8, _R10 = 0.00001799 / 40, 0.00003846 / 40


@dataclass(frozen=True)
class PropaneEquilibrium(TestProblem):
    """Five element balances in reduced variables, with equilibrium constants from 1e-7 to 0.2."""

    name = "propane-equilibrium"
    tags = ("application",)
    source = "Meintjes & Morgan 1990, reduced formulation"
    standard_size = 5
    sizes = "5"
    remark = "All four real roots are given; the first is the physical one. The start is not from the paper."

    def function(self, z: Tensor) -> Tensor:
        x1, x2, x3, x4, x5 = z.unbind(-1)
        return torch.stack(
            (
                x1 * x2 + x1 - 3 * x5,
                2 * x1 * x2 + x1 + 2 * _R10 * x2**2 + x2 * x3**2 + _R7 * x2 * x3
                + _R9 * x2 * x4 + _R8 * x2 - _R * x5,
                2 * x2 * x3**2 + _R7 * x2 * x3 + 2 * _R5 * x3**2 + _R6 * x3 - 8 * x5,
                _R9 * x2 * x4 + 2 * x4**2 - 4 * _R * x5,
                x1 * x2 + x1 + _R10 * x2**2 + x2 * x3**2 + _R7 * x2 * x3 + _R9 * x2 * x4
                + _R8 * x2 + _R5 * x3**2 + _R6 * x3 + x4**2 - 1,
            ),
            dim=-1,
        )  # fmt: skip

    def first(self, n: int) -> list[float]:
        return [10.0] * 5

    def known(self, n: int) -> list[Root]:
        return [Root.of(root) for root in _ROOTS]


# Newton's method in 40 digits.
_ROOTS = (
    (
        0.00311410226598496, 34.597924530290125, 0.06504177869743797,
        0.85937805057794058, 0.036951859148046025,
    ),
    (
        0.0027571774003751629, 39.242289044801685, -0.061387604107401545,
        0.85972442501847878, 0.036985043297897402,
    ),
    (
        0.0024710000445700052, 43.879222194854081, 0.057784455570772517,
        -0.8602054729626339, 0.036965520014583867,
    ),
    (
        0.0021533077235593349, 50.54957000097757, -0.054144807684101764,
        -0.86067132300723518, 0.037000695743089197,
    ),
)  # fmt: skip
