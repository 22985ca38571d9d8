"""Trust region with Powell's dogleg between steepest descent and Newton step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...options.options import check_integer
from .globalisation import (
    Advance,
    Evaluate,
    FullSteps,
    Globalisation,
    Model,
    Point,
    first_norms,
    next_norms,
    units,
    unmoved,
)
from .parabola import SUFFICIENT_DECREASE, trusted

_GOOD_RATIO = 0.5
_GROWTH = 2.0


@dataclass(frozen=True)
class TrustRegionMemory:
    """Radius, `(batch,)`, NaN before the first step, and last norms, `(batch, memory)`."""

    radius: Tensor
    norms: Tensor


@dataclass(frozen=True)
class TrustRegion(Globalisation):
    """The dogleg: from the minimum along steepest descent towards the Newton step, up to a radius.

    Lengths are in units of the columns of the Jacobian, where they are known (`Newton`), so that unknowns
    of any sizes count alike; else all unknowns have one unit (`NewtonKrylov`, whose step may be inexact).
    The first radius is the length of the first Newton step: where undamped Newton steps lower the
    residual, the method takes them. A step is accepted by the ratio of the decrease of `‖r‖²`, from the
    largest of the last `memory` norms, to the decrease that the linear model promises: from 1e-4 on. From
    one half on the radius grows; after a rejection it shrinks. On a linear equation, which is its own
    model, steps are taken in full.

    Beside the Newton step it costs one product with `J`; where the radius binds, one with `Jᵀ` and one
    more with `J`.

    Attributes:
        memory: Number of last residual norms to compare with; with one, the residual falls in every step.
        max_trials: Radii that one step tries, after which a system stalls.
        balance: Compare equations in units of the rows of the first Jacobian, where they are known
            (`Newton`); see `Globalisation`.

    Raises:
        ValueError: A number is not a positive integer.
        TypeError: `balance` is not a truth value.

    Source: Powell 1970; Dennis & Schnabel 1983, algorithms A6.4.3–A6.4.5; Moré 1978 (units);
    Deng, Xiao & Zhou 1993 (memory); Pawlowski, Simonis, Walker & Shadid 2008 (inexact steps).

    Examples:
        >>> import torch, implicitly
        >>> solver = implicitly.Newton(globalisation=implicitly.TrustRegion())
        >>> z0 = torch.tensor([0.0, 1.0], dtype=torch.float64)  # Powell's badly scaled function.
        >>> F = lambda z: torch.stack([1e4 * z[0] * z[1] - 1, (-z).exp().sum() - 1.0001])
        >>> z = implicitly.root(F, z0, solver=solver).value
        >>> [f"{entry:.6g}" for entry in z.tolist()]
        ['1.09816e-05', '9.10615']
    """

    balance: bool = True
    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("memory", self.memory, 1)

    def begin(self, start: Point) -> TrustRegionMemory:
        unknown = torch.full_like(start.norm, torch.nan)
        return TrustRegionMemory(unknown, first_norms(start.norm, self.memory))

    def advance(
        self,
        evaluate: Evaluate,
        start: Point,
        model: Model,
        memory: TrustRegionMemory,
        settled: Tensor,
    ) -> Advance:
        if model.exact:
            return FullSteps().advance(evaluate, start, model, memory, settled)
        scale = units(model.lengths, start.z)
        newton = _Leg.of(model.step, model, scale)
        cauchy: _Leg | None = None
        radius = torch.where(memory.radius.isnan(), newton.length, memory.radius)
        allowance = memory.norms.amax(dim=1)
        point, accepted, over = start, settled, settled
        for _ in range(self.max_trials):
            if cauchy is None and bool((~over & (newton.length > radius)).any()):
                cauchy = _steepest_descent(model, scale)
            leg = newton if cauchy is None else _within(radius, cauchy, newton, scale)
            trial_z = torch.where(over.unsqueeze(1), point.z, start.z + leg.step)
            trial = evaluate(trial_z)
            promised = promised_decrease(model, leg.change)
            ratio = decrease(allowance, trial.norm, start.norm) / promised
            good = ~over & (ratio >= SUFFICIENT_DECREASE)
            point = point.or_else(good, trial)
            accepted, ended = accepted | good, over | good | unmoved(start, trial)
            done = bool(ended.all())
            following = _kept_radius(radius, leg, ratio)
            if not done:
                cut = _cut(leg, decrease(start.norm, trial.norm, start.norm), model)
                following = torch.where(ratio >= SUFFICIENT_DECREASE, following, cut)
            radius, over = torch.where(over, radius, following), ended
            if done:
                break
        norms = next_norms(memory.norms, point.norm)
        return Advance(point, accepted, TrustRegionMemory(radius, norms))


class _Leg(NamedTuple):
    """Step `s` with `J s` and its length in the scaled norm."""

    step: Tensor
    change: Tensor
    length: Tensor

    @staticmethod
    def of(step: Tensor, model: Model, scale: Tensor) -> _Leg:
        return _Leg(step, model.jvp(step), torch.linalg.vector_norm(scale * step, dim=1))


def _steepest_descent(model: Model, scale: Tensor) -> _Leg:
    """The Cauchy step: to the model's minimum along the steepest descent of the scaled norm."""
    unit = model.residual / torch.linalg.vector_norm(model.residual, dim=1, keepdim=True)
    direction = -model.vjp(unit) / scale**2
    # A direction of length one, so that no square overflows; zero where the gradient vanishes.
    size = torch.linalg.vector_norm(scale * direction, dim=1, keepdim=True)
    direction = torch.where(size > 0, direction / size, 0.0)
    change = model.jvp(direction)
    least = -(model.residual * change).sum(dim=1, keepdim=True) / _square(change).unsqueeze(1)
    least = torch.where(torch.isfinite(least), least, 0.0)
    return _Leg(least * direction, least * change, least.squeeze(1) * (size > 0).squeeze(1))


def _within(radius: Tensor, cauchy: _Leg, newton: _Leg, scale: Tensor) -> _Leg:
    """The point of the dogleg 0 → Cauchy → Newton that lies at `radius`, or the Newton step within it."""
    first, second = scale * cauchy.step, scale * (newton.step - cauchy.step)
    room = (radius - cauchy.length) * (radius + cauchy.length)
    along, whole = (first * second).sum(dim=1), _square(second)
    root = (along**2 + whole * room).clamp(min=0.0).sqrt()
    share = torch.where(along > 0, room / (along + root), (root - along) / whole)
    share = share.nan_to_num(nan=0.0).clamp(0.0, 1.0)
    on_first_leg = cauchy.length >= radius
    onward = torch.where(on_first_leg, 0.0, share)
    start = torch.where(on_first_leg, radius / cauchy.length, 1.0) * (1.0 - onward)
    inside = newton.length <= radius
    start, onward = torch.where(inside, 0.0, start), torch.where(inside, 1.0, onward)
    a, b = start.unsqueeze(1), onward.unsqueeze(1)
    return _Leg(
        a * cauchy.step + b * newton.step,
        a * cauchy.change + b * newton.change,
        torch.where(inside, newton.length, radius),
    )


def _kept_radius(radius: Tensor, leg: _Leg, ratio: Tensor) -> Tensor:
    """The radius after an accepted trial: longer where the model was good."""
    longer = torch.maximum(radius, _GROWTH * leg.length)
    return torch.where(ratio >= _GOOD_RATIO, longer, radius)


def _cut(leg: _Leg, actual: Tensor, model: Model) -> Tensor:
    """The radius after a refused trial.

    The minimum of the parabola through `‖r‖²` at both ends with the slope of the model (A6.4.5).
    """
    slope = 2.0 * (model.residual * leg.change).sum(dim=1) / _square(model.residual)
    return trusted(slope / (2.0 * (actual + slope))) * leg.length


def decrease(before: Tensor, after: Tensor, unit: Tensor) -> Tensor:
    """`(before² − after²) / unit²` without squares, which may overflow."""
    return ((before - after) / unit) * ((before + after) / unit)


def promised_decrease(model: Model, change: Tensor) -> Tensor:
    """`1 − ‖r + J s‖² / ‖r‖²`; NaN where it is no decrease."""
    norm = torch.linalg.vector_norm(model.residual, dim=1)
    after = torch.linalg.vector_norm(model.residual + change, dim=1)
    promised = decrease(norm, after, norm)
    return torch.where(promised > 0, promised, torch.nan)


def _square(rows: Tensor) -> Tensor:
    return (rows * rows).sum(dim=1)
