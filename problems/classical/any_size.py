"""Dense equations of any size: a chain of Rosenbrock's, Brown's, trigonometric, variably dimensioned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem, indices
from ..reference import zero_between


@dataclass(frozen=True)
class GeneralisedRosenbrock(TestProblem):
    """A chain of parabolas: each further unknown squares an error in the first."""

    name = "generalised-rosenbrock"
    tags = ("classical", "scalable")
    source = "Rosenbrock 1960; Moré, Garbow & Hillstrom 1981, problem 1; Burkardt (chain)"
    standard_size = 10
    sizes = "2, 3, …"

    def allows(self, n: int) -> bool:
        return n >= 2

    def function(self, z: Tensor) -> Tensor:
        return torch.cat((1 - z[..., :1], 10 * (z[..., 1:] - z[..., :-1] ** 2)), dim=-1)

    def first(self, n: int) -> list[float]:
        return [-1.2] + [1.0] * (n - 1)

    def known(self, n: int) -> list[Root]:
        return [Root(torch.ones(n, dtype=torch.float64))]


@dataclass(frozen=True)
class BrownAlmostLinear(TestProblem):
    """Linear equations, except for the last one, a product."""

    name = "brown-almost-linear"
    tags = ("classical", "scalable")
    source = "Brown 1969; Moré, Garbow & Hillstrom 1981, problem 27"
    standard_size = 10
    sizes = "2, 3, …"
    remark = "All roots are given; a third one exists for odd n."

    def allows(self, n: int) -> bool:
        return n >= 2

    def function(self, z: Tensor) -> Tensor:
        sums = z[..., :-1] + z.sum(-1, keepdim=True) - (z.shape[-1] + 1)
        return torch.cat((sums, z.prod(-1, keepdim=True) - 1), dim=-1)

    def first(self, n: int) -> list[float]:
        return [0.5] * n

    def known(self, n: int) -> list[Root]:
        # x = (α, …, α, α^(1−n)) with n αⁿ − (n+1) α^(n−1) + 1 = 0; divided by the root α = 1, this is
        # n α^(n−1) = 1 + α + … + α^(n−2).
        def deflated(a: float) -> float:
            return n * a ** (n - 1) - sum(a**k for k in range(n - 1))

        first = [1.0, zero_between(deflated, 0.0, 1.0)]
        if n % 2:
            first.append(zero_between(deflated, -1.0, 0.0))
        return [Root.of([a] * (n - 1) + [a ** (1 - n)]) for a in first]


@dataclass(frozen=True)
class Trigonometric(TestProblem):
    """Equations with the sum of all cosines; a minimum of the residual is near the start."""

    name = "trigonometric"
    tags = ("classical", "scalable")
    source = "Spedicato 1975; Moré, Garbow & Hillstrom 1981, problem 26"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "Adding multiples of 2π to unknowns gives roots. Others may exist."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        # 1 − cos x without cancellation.
        lack = 2 * torch.sin(z / 2) ** 2
        return lack.sum(-1, keepdim=True) + indices(z) * lack - torch.sin(z)

    def first(self, n: int) -> list[float]:
        return [1 / n] * n

    def known(self, n: int) -> list[Root]:
        return [Root(torch.zeros(n, dtype=torch.float64))]


@dataclass(frozen=True)
class VariablyDimensioned(TestProblem):
    """A cubic in one weighted sum, which grows with the size."""

    name = "variably-dimensioned"
    tags = ("classical", "scalable")
    source = "Moré, Garbow & Hillstrom 1981, problem 25"
    standard_size = 10
    sizes = "1, 2, …"
    remark = "The root is the only one."

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        weight = indices(z)
        total = (weight * (z - 1)).sum(-1, keepdim=True)
        return z - 1 + weight * total * (1 + 2 * total**2)

    def first(self, n: int) -> list[float]:
        return [1 - i / n for i in range(1, n + 1)]

    def known(self, n: int) -> list[Root]:
        return [Root(torch.ones(n, dtype=torch.float64))]
