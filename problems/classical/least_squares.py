"""Watson's function, whose equations are a gradient, and Chebyshev's quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Root, TestProblem


@dataclass(frozen=True)
class Watson(TestProblem):
    """Half the gradient of a least-squares fit of a polynomial to a differential equation.

    The Jacobian becomes as ill-conditioned as Hilbert's matrix: 1e4 for 6 unknowns, 1e8 for 9.
    """

    name = "watson"
    tags = ("classical",)
    source = "Kowalik & Osborne 1968; Moré, Garbow & Hillstrom 1981, problem 20"
    standard_size = 2
    sizes = "2, …, 31"
    remark = (
        "Roots are given for n = 2, 6, 9 and 12; others exist for each n and are not tabulated."
    )

    def allows(self, n: int) -> bool:
        return 2 <= n <= 31

    def function(self, z: Tensor) -> Tensor:
        n = z.shape[-1]
        point = torch.arange(1, 30, dtype=z.dtype, device=z.device).unsqueeze(1) / 29
        powers = point ** torch.arange(n, dtype=z.dtype, device=z.device)  # t^(j−1), (29, n)
        slopes = torch.arange(n, dtype=z.dtype, device=z.device) * powers / point
        value = z @ powers.mT
        misfit = z @ slopes.mT - value**2 - 1
        gradient = misfit @ slopes - 2 * (value * misfit) @ powers
        x1, x2 = z[..., 0], z[..., 1]
        last = x2 - x1**2 - 1
        ends = torch.stack((x1 * (1 - 2 * last), last), dim=-1)
        return gradient + torch.nn.functional.pad(ends, (0, n - 2))

    def first(self, n: int) -> list[float]:
        return [0.0] * n

    def known(self, n: int) -> list[Root]:
        return [Root.of(_WATSON[n])] if n in _WATSON else []


# Newton's method in 60 digits from the standard start.
_WATSON = {
    2: (-0.50136700752196269, 1.0736498384595432),
    6: (
        -0.015725086401458457, 1.0124348693691099, -0.23299162595673768,
        1.2604300877996083, -1.5137289227222797, 0.99299643243113452,
    ),
    9: (
        -1.5307036521394342e-5, 0.99978970393194838, 0.014763963693556959,
        0.14634232829936223, 1.0008211030047092, -2.6177311405190151,
        4.1044031644788564, -3.1436122785564422, 1.0526264080101669,
    ),
    12: (
        -6.638060464520687e-9, 1.000001644117862, -0.00056393221034230585,
        0.34782054050404241, -0.15673150409616512, 1.0528151772071778,
        -3.2472711534596677, 7.288434897938061, -10.271848241321724,
        9.0741136470753157, -4.541375466692512, 1.0120118885528104,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Chebyquad(TestProblem):
    """Nodes on [−1, 1] at which the mean of `T_1, …, T_n` equals their mean over the interval."""

    name = "chebyquad"
    tags = ("classical",)
    source = "Fletcher 1965; Moré, Garbow & Hillstrom 1981, problem 35"
    standard_size = 2
    sizes = "1, 2, …"
    remark = (
        "Every permutation of a root is one. None exists for n = 8 and n ≥ 10 (Bernstein 1937): there "
        "each solver has to fail."
    )

    def allows(self, n: int) -> bool:
        return n >= 1

    def function(self, z: Tensor) -> Tensor:
        before, polynomial = torch.ones_like(z), z
        means = []
        for i in range(1, z.shape[-1] + 1):
            integral = -1 / (i * i - 1) if i % 2 == 0 else 0.0
            means.append(polynomial.mean(-1) - integral)
            before, polynomial = polynomial, 2 * z * polynomial - before
        return torch.stack(means, dim=-1)

    def first(self, n: int) -> list[float]:
        return [(2 * j - n - 1) / (n + 1) for j in range(1, n + 1)]

    def known(self, n: int) -> list[Root]:
        if n not in _POSITIVE_NODES:
            return []
        positive = _POSITIVE_NODES[n]
        middle = (0.0,) if n % 2 else ()
        return [Root.of((*(-node for node in reversed(positive)), *middle, *positive))]


# Newton's method in 60 digits.
_POSITIVE_NODES: dict[int, tuple[float, ...]] = {
    1: (),
    2: (0.577350269189625765,),
    3: (0.707106781186547524,),
    4: (0.1875924740850799, 0.794654472291766123),
    5: (0.374541409553581066, 0.832497487000981876),
    6: (0.26663540151670472, 0.422518653761111529, 0.866246818107820591),
    7: (0.323911810519907638, 0.529656775285156811, 0.883861700758049036),
    9: (
        0.167906184214803943, 0.528761783057879993, 0.601018655380238071, 0.911589307728434474,
    ),
}  # fmt: skip
