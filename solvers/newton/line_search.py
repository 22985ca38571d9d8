"""Line searches: shorten a step until the residual norm is low enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_integer
from .globalisation import (
    Advance,
    Evaluate,
    Globalisation,
    Model,
    Point,
    first_norms,
    next_norms,
    unmoved,
)
from .parabola import SUFFICIENT_DECREASE, trusted


@dataclass(frozen=True)
class LineSearch(Globalisation):
    """Armijo's rule: `‖r(z + λs)‖ ≤ (1 − 1e-4 λ) ‖r(z)‖`, from `λ = 1` down.

    The next length minimises the parabola through `‖r‖²` at 0 and at the last length, with the slope of a
    Newton step at 0, kept between a tenth and a half of the last. A trial that is not finite is
    halved. A system stalls where no length is accepted: at a minimum of `‖r‖` that is not a root, or
    where `J` is so nearly singular that its step does not lower the residual.

    Attributes:
        max_trials: Lengths that one step tries, after which a system stalls.
        balance: Compare equations in units of the rows of the first Jacobian, where they are known
            (`Newton`); see `Globalisation`.

    Raises:
        ValueError: `max_trials` is not a positive integer.
        TypeError: `balance` is not a truth value.

    Source: Armijo 1966; Dennis & Schnabel 1983, section 6.3.2; Kelley 1995, section 8.3.1.

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.Newton(globalisation=implicitly.LineSearch())
        >>> z0 = torch.tensor(10.0, dtype=torch.float64)  # Undamped, the iteration diverges.
        >>> abs(implicitly.root(torch.atan, z0, solver=solver).value.item()) < 1e-6
        True
    """

    def advance(
        self, evaluate: Evaluate, start: Point, model: Model, memory: Any, settled: Tensor
    ) -> Advance:
        point, accepted = _backtrack(evaluate, start, model.step, start.norm, settled, self)
        return Advance(point, accepted, None)


@dataclass(frozen=True)
class NonmonotoneLineSearch(Globalisation):
    """Armijo's rule against the largest of the last `memory` norms: the residual may rise for a while.

    A step is accepted where `‖r(z + λs)‖ ≤ max ‖r(z_{k−j})‖ − 1e-4 λ ‖r(z_k)‖`, `0 ≤ j < memory`. The rule
    follows curved valleys with longer steps than `LineSearch`, and can leave regions in which that stalls.

    Attributes:
        memory: Number of last residual norms to compare with; one is Armijo's rule.
        max_trials: Lengths that one step tries, after which a system stalls.
        balance: Compare equations in units of the rows of the first Jacobian, where they are known
            (`Newton`); see `Globalisation`.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: `balance` is not a truth value.

    Source: Grippo, Lampariello & Lucidi 1986, in norms instead of their squares.

    Examples:
        >>> import torch, implicitly
        >>> search = implicitly.NonmonotoneLineSearch(memory=5)
        >>> z0 = torch.tensor([-1.2, 1.0], dtype=torch.float64)
        >>> F = lambda z: torch.stack([10 * (z[1] - z[0] ** 2), 1 - z[0]])
        >>> z = implicitly.root(F, z0, solver=implicitly.Newton(globalisation=search)).value
        >>> z.round(decimals=6).tolist()
        [1.0, 1.0]
    """

    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("memory", self.memory, 1)

    def begin(self, start: Point) -> Tensor:
        return first_norms(start.norm, self.memory)

    def advance(
        self, evaluate: Evaluate, start: Point, model: Model, memory: Tensor, settled: Tensor
    ) -> Advance:
        reference = memory.amax(dim=1)
        point, accepted = _backtrack(evaluate, start, model.step, reference, settled, self)
        return Advance(point, accepted, next_norms(memory, point.norm))


def _backtrack(
    evaluate: Evaluate,
    start: Point,
    step: Tensor,
    reference: Tensor,
    settled: Tensor,
    options: Globalisation,
) -> tuple[Point, Tensor]:
    """The first point along `step` whose norm is enough below `reference`, and which systems have one."""
    length = torch.ones_like(start.norm)
    best, accepted, over = start, settled, settled
    for _ in range(options.max_trials):
        trial_z = start.z + length.unsqueeze(1) * step
        trial = evaluate(torch.where(over.unsqueeze(1), best.z, trial_z))
        low = trial.norm <= reference - SUFFICIENT_DECREASE * length * start.norm
        good = ~over & low
        best = best.or_else(good, trial)
        accepted, over = accepted | good, over | good | unmoved(start, trial)
        if bool(over.all()):
            break
        ratio = trial.norm / start.norm
        cut = 1.0 / (ratio**2 - 1.0 + 2.0 * length) * length
        length = torch.where(over, length, length * trusted(cut))
    return best, accepted
