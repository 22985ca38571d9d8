"""Aitken's extrapolation of an iteration from two of its steps, one number for each system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.scale import first_length
from ..interface.solver import Solver


@dataclass
class AitkenState:
    """Iterate and length of the next step; numbers per system are `(batch, 1)`."""

    z: Tensor
    residual: Tensor
    length: Tensor
    first_length: Tensor


@dataclass(frozen=True)
class Aitken(Solver):
    """`z ← z + ω r` with the `ω` that Aitken's Δ² gives for the last two residuals.

    `ω ← ω r₋ᵀ(r₋ − r) / ‖r₋ − r‖²`: in one unknown this is Aitken's Δ² process applied at each step, the
    secant method, of order 1.618; with more unknowns one length serves all of them (dynamic
    relaxation, the usual choice for coupled simulations). A step needs one evaluation, and the state
    three vectors. The first step is plain; for a root, one product with the Jacobian gives its length.
    Independent scalar equations are one system each: `batch_dims=1` on `z0` of shape `(batch,)`.

    Source: Aitken 1926; Irons & Tuck 1969 (vector form).

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.zeros(3, dtype=torch.float64)
        >>> x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        >>> f = lambda z: torch.cos(z) + x
        >>> solution = implicitly.fixed_point(f, z0, solver=implicitly.Aitken(), batch_dims=1)
        >>> solution.value.round(decimals=4).tolist(), bool((solution.steps < 10).all())
        ([0.7391, 1.0218, 1.2834], True)
    """

    suits: ClassVar[str] = "scalar equations; relaxation of coupled ones"

    default_max_steps: ClassVar[int] = 2000

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AitkenState:
        length = first_length(problem, z, residual)
        return AitkenState(z, residual, length, length)

    def step(self, problem: Problem, state: AitkenState) -> AitkenState:
        z = state.z + state.length * state.residual
        residual = problem.residual(z)
        length = state.length * _factor(state.residual, residual)
        # A length of zero would stay zero.
        usable = torch.isfinite(length) & (length != 0)
        length = torch.where(usable, length, state.first_length)
        return AitkenState(z, residual, length, state.first_length)


@dataclass(frozen=True)
class Steffensen(Solver):
    """Aitken's Δ² from two fresh residuals: quadratic convergence in one unknown, without derivatives.

    A plain step `z₁ = z + t r` shows the slope along `r`; then `z ← z₁ + ω r(z₁)` with
    `ω = t rᵀ(r − r₁) / ‖r − r₁‖²`. A step needs two evaluations. For fixed points `t = 1`; for roots one
    product with the Jacobian at the start gives `t`, so that units do not matter. With several unknowns
    one number serves all of them, and the quadratic order is lost.

    Source: Steffensen 1933; Aitken 1926; Irons & Tuck 1969 (vector form).

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor(1.0, dtype=torch.float64)
        >>> z = implicitly.root(lambda z: z**2 - 2, z0, solver=implicitly.Steffensen()).value
        >>> round(z.item(), 9)
        1.414213562
    """

    suits: ClassVar[str] = "scalar equations; relaxation of coupled ones"

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AitkenState:
        length = first_length(problem, z, residual)
        return AitkenState(z, residual, length, length)

    def step(self, problem: Problem, state: AitkenState) -> AitkenState:
        between = state.z + state.length * state.residual
        residual = problem.residual(between)
        factor = _factor(state.residual, residual)
        factor = torch.where(torch.isfinite(factor), factor, 1.0)
        z = between + state.length * factor * residual
        return AitkenState(z, problem.residual(z), state.length, state.first_length)


def _factor(before: Tensor, after: Tensor) -> Tensor:
    """`bᵀ(b − a) / ‖b − a‖²`, `(batch, 1)`; in one dimension `1 / (1 − a/b)`. Infinite where `a = b`."""
    # Not the norm, whose squares underflow where those below would.
    size = before.abs().amax(dim=1, keepdim=True)
    size = size.masked_fill(size == 0, 1.0)
    before, change = before / size, (before - after) / size
    square = change.square().sum(dim=1, keepdim=True)
    inner = (before * change).sum(dim=1, keepdim=True)
    flat = square == 0
    return (inner / square.masked_fill(flat, 1.0)).masked_fill(flat, torch.inf)
