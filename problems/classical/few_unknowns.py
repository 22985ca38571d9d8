"""Powell's singular and badly scaled functions, Wood's, and the helical valley."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem


@dataclass(frozen=True)
class PowellSingular(TestProblem):
    """Two of four equations are squares: the Jacobian at the root has rank 2."""

    name = "powell-singular"
    tags = ("classical",)
    source = "Powell 1962; Moré, Garbow & Hillstrom 1981, problem 13"
    standard_size = 4
    sizes = "4"

    def function(self, z: Tensor) -> Tensor:
        x1, x2, x3, x4 = z.unbind(-1)
        return torch.stack(
            (
                x1 + 10 * x2,
                math.sqrt(5) * (x3 - x4),
                (x2 - 2 * x3) ** 2,
                math.sqrt(10) * (x1 - x4) ** 2,
            ),
            dim=-1,
        )

    def first(self, n: int) -> list[float]:
        return [3.0, -1.0, 0.0, 1.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of([0.0] * 4, singular=True)]


@dataclass(frozen=True)
class PowellBadlyScaled(TestProblem):
    """Two unknowns whose sizes differ by six orders of magnitude."""

    name = "powell-badly-scaled"
    tags = ("classical",)
    source = "Powell 1970; Moré, Garbow & Hillstrom 1981, problem 3"
    standard_size = 2
    sizes = "2"

    def function(self, z: Tensor) -> Tensor:
        x1, x2 = z.unbind(-1)
        return torch.stack((1e4 * x1 * x2 - 1, torch.exp(-x1) + torch.exp(-x2) - 1.0001), dim=-1)

    def first(self, n: int) -> list[float]:
        return [0.0, 1.0]

    def known(self, n: int) -> list[Root]:
        small, large = 1.0981593296998175e-05, 9.106146739866524
        return [Root.of((small, large)), Root.of((large, small))]


@dataclass(frozen=True)
class Wood(TestProblem):
    """The gradient of Wood's function, up to a factor: a minimum and two saddles."""

    name = "wood"
    tags = ("classical",)
    source = "Colville 1968; Moré, Garbow & Hillstrom 1981, problem 14"
    standard_size = 4
    sizes = "4"

    def function(self, z: Tensor) -> Tensor:
        x1, x2, x3, x4 = z.unbind(-1)
        u, v = x2 - x1**2, x4 - x3**2
        return torch.stack(
            (
                -200 * x1 * u - (1 - x1),
                200 * u + 20.2 * (x2 - 1) + 19.8 * (x4 - 1),
                -180 * x3 * v - (1 - x3),
                180 * v + 20.2 * (x4 - 1) + 19.8 * (x2 - 1),
            ),
            dim=-1,
        )

    def first(self, n: int) -> list[float]:
        return [-3.0, -1.0, -3.0, -1.0]

    def known(self, n: int) -> list[Root]:
        return [
            Root.of([1.0] * 4),
            Root.of(
                (
                    -0.9679740249375931,
                    0.9471391408178418,
                    -0.9695163103315912,
                    0.9512476657923253,
                )
            ),
            Root.of(
                (
                    -0.03125102339433596,
                    0.16597138685578313,
                    -0.031258171023264063,
                    0.1842639346967284,
                )
            ),
        ]


@dataclass(frozen=True)
class HelicalValley(TestProblem):
    """A valley that winds around an axis; the angle jumps where `x1 < 0` and `x2` changes its sign."""

    name = "helical-valley"
    tags = ("classical",)
    source = "Fletcher & Powell 1963; Moré, Garbow & Hillstrom 1981, problem 7"
    standard_size = 3
    sizes = "3"

    def function(self, z: Tensor) -> Tensor:
        x1, x2, x3 = z.unbind(-1)
        # atan(x2/x1)/2π, plus ½ where x1 < 0, is the angle in turns between −¼ and ¾.
        angle = torch.atan2(x2, x1) / (2 * math.pi)
        angle = torch.where((x1 < 0) & (angle < 0), angle + 1, angle)
        radius = torch.hypot(x1, x2)
        return torch.stack((10 * (x3 - 10 * angle), 10 * (radius - 1), x3), dim=-1)

    def first(self, n: int) -> list[float]:
        return [-1.0, 0.0, 0.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((1.0, 0.0, 0.0))]
