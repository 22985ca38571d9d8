"""Equations of one or two unknowns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem


@dataclass(frozen=True)
class DennisSchnabel(TestProblem):
    """A line and a circle."""

    name = "dennis-schnabel"
    tags = ("classical",)
    source = "Dennis & Schnabel 1983, example 5.1.2"
    standard_size = 2
    sizes = "2"
    remark = "Both roots are given."

    def function(self, z: Tensor) -> Tensor:
        x1, x2 = z.unbind(-1)
        return torch.stack((x1 + x2 - 3, x1**2 + x2**2 - 9), dim=-1)

    def first(self, n: int) -> list[float]:
        return [1.0, 5.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((0.0, 3.0)), Root.of((3.0, 0.0))]


@dataclass(frozen=True)
class ExponentialAxes(TestProblem):
    """`(x2² (1 − e^{−x1²}) / x1, x1 (1 − e^{−x2²}) / x2)`: both axes are roots."""

    name = "exponential-axes"
    tags = ("classical",)
    source = "Burkardt, test_nonlin, problem 18"
    standard_size = 2
    sizes = "2"
    remark = "Every point of both axes is a root; three of them are given."

    def function(self, z: Tensor) -> Tensor:
        x1, x2 = z.unbind(-1)
        return torch.stack((x1 * _mean_decay(x1**2) * x2**2, x1 * x2 * _mean_decay(x2**2)), dim=-1)

    def first(self, n: int) -> list[float]:
        return [2.0, 2.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of(point, singular=True) for point in ((0.0, 0.0), (0.0, 2.0), (2.0, 0.0))]


def _mean_decay(y: Tensor) -> Tensor:
    """`(1 − e^{−y}) / y`, continued to 1 at 0, with derivatives there."""
    at_zero = y == 0
    divisor = torch.where(at_zero, 1.0, y)
    return torch.where(at_zero, 1 - y / 2, -torch.expm1(-divisor) / divisor)


@dataclass(frozen=True)
class RadialCubic(TestProblem):
    """`x ‖x‖²`: the first two derivatives vanish at the root."""

    name = "radial-cubic"
    tags = ("classical",)
    source = "Burkardt, test_nonlin, problem 19"
    standard_size = 2
    sizes = "2"
    remark = "The root is the only one."

    def function(self, z: Tensor) -> Tensor:
        return z * (z**2).sum(-1, keepdim=True)

    def first(self, n: int) -> list[float]:
        return [3.0, 3.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((0.0, 0.0), singular=True)]


@dataclass(frozen=True)
class ScalarDouble(TestProblem):
    """`x (x − 5)²`: a simple root and a double one."""

    name = "scalar-double"
    tags = ("classical",)
    source = "Burkardt, test_nonlin, problem 20"
    standard_size = 1
    sizes = "1"
    remark = "Both roots are given."

    def function(self, z: Tensor) -> Tensor:
        return z * (z - 5) ** 2

    def first(self, n: int) -> list[float]:
        return [1.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((0.0,)), Root.of((5.0,), singular=True)]


@dataclass(frozen=True)
class FreudensteinRoth(TestProblem):
    """Two cubics; a local minimum of the residual at (11.41, −0.897) catches most methods."""

    name = "freudenstein-roth"
    tags = ("classical",)
    source = "Freudenstein & Roth 1963; Moré, Garbow & Hillstrom 1981, problem 2"
    standard_size = 2
    sizes = "2"
    remark = "The root is the only one."

    def function(self, z: Tensor) -> Tensor:
        x1, x2 = z.unbind(-1)
        return torch.stack(
            (
                x1 - x2**3 + 5 * x2**2 - 2 * x2 - 13,
                x1 + x2**3 + x2**2 - 14 * x2 - 29,
            ),
            dim=-1,
        )

    def first(self, n: int) -> list[float]:
        return [0.5, -2.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((5.0, 4.0))]


@dataclass(frozen=True)
class Boggs(TestProblem):
    """A parabola and a cosine; the Jacobian is singular on a curve between start and root."""

    name = "boggs"
    tags = ("classical",)
    source = "Boggs 1971"
    standard_size = 2
    sizes = "2"
    remark = "All roots are given."

    def function(self, z: Tensor) -> Tensor:
        x1, x2 = z.unbind(-1)
        return torch.stack((x1**2 - x2 + 1, x1 - torch.cos(math.pi / 2 * x2)), dim=-1)

    def first(self, n: int) -> list[float]:
        return [1.0, 0.0]

    def known(self, n: int) -> list[Root]:
        return [Root.of((0.0, 1.0)), Root.of((-1.0, 2.0)), Root.of((-math.sqrt(0.5), 1.5))]
