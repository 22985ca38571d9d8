"""The trust-region subproblem in the basis of eigenvectors: minimise `cᵀy + ½ Σ λ y²` within `‖y‖ ≤ Δ`.

The minimiser is `y = −c / (λ + μ)` with the least `μ ≥ 0` for which no `λ + μ` is negative and `‖y‖ ≤ Δ`.
With the eigenvalues at hand a radius costs a few vector operations, so that rejected trials are cheap. In the
hard case, where `c` has no part along the least, negative eigenvalue, the step is filled up along its
eigenvector.

Source: Moré & Sorensen 1983; Conn, Gould & Toint 2000, section 7.3 (Newton's method for `1/‖y‖ = 1/Δ`);
Powell 1970 (the dogleg).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Steps of the safeguarded Newton iteration for μ, which gains digits quadratically.
_MOST_ITERATIONS = 30
# A step whose length is this close to the radius is taken.
_NEAR = 0.05
# A shift above zero is sought from this part of its upper bound on, where zero leaves no finite step.
_FIRST_SHARE = 1e-3


def model_minimum(values: Tensor, coefficients: Tensor, rank_tolerance: float) -> Tensor:
    """The minimum of a convex model, of smallest norm: zero along eigenvalues that are zero to rounding."""
    largest = values.abs().amax(dim=1, keepdim=True)
    regular = values > rank_tolerance * largest
    return torch.where(regular, -coefficients / torch.where(regular, values, 1.0), 0.0)


def optimal_step(
    values: Tensor, coefficients: Tensor, radius: Tensor, rank_tolerance: float
) -> Tensor:
    """The minimiser within the radius.

    Args:
        values: Eigenvalues in ascending order, `(batch, n)`.
        coefficients: The gradient in the basis of eigenvectors, `(batch, n)`.
        radius: `Δ`, `(batch,)`.
        rank_tolerance: Eigenvalues below this fraction of the largest are zero.
    """
    tiny = torch.finfo(values.dtype).tiny
    whole = model_minimum(values, coefficients, rank_tolerance)
    largest = values.abs().amax(dim=1)
    least = values.amin(dim=1)
    convex = least >= -rank_tolerance * largest
    # Along zero eigenvalues a gradient above rounding leads to the boundary.
    null = values <= rank_tolerance * largest.unsqueeze(1)
    size = _norm(coefficients)
    open_ = _norm(torch.where(null, coefficients, 0.0)) > rank_tolerance * size
    inside = convex & ~open_ & (_norm(whole) <= radius)
    low = (-least).clamp(min=0.0) + torch.finfo(values.dtype).eps * largest
    high = low + size / radius.clamp(min=tiny)
    # From the left of the root of a concave function Newton's method ascends to it.
    shift = low
    for _ in range(_MOST_ITERATIONS):
        y = _shifted(values, coefficients, shift)
        length = _norm(y)
        if bool((inside | ((length - radius).abs() <= _NEAR * radius)).all()):
            break
        low = torch.where(length > radius, torch.maximum(low, shift), low)
        high = torch.where(length <= radius, torch.minimum(high, shift), high)
        slope = (y * _shifted(values, -y, shift)).sum(dim=1)
        newton = shift + (length / radius - 1.0) * length**2 / slope.clamp(min=tiny)
        usable = (newton > low) & (newton < high)
        between = torch.where(low > 0, (low * high).sqrt(), _FIRST_SHARE * high)
        shift = torch.where(usable, newton, between.clamp(min=low, max=high))
    y = _shifted(values, coefficients, shift)
    y = _filled(y, radius, least < -rank_tolerance * largest)
    return torch.where(inside.unsqueeze(1), whole, y)


def dogleg_step(
    values: Tensor, coefficients: Tensor, radius: Tensor, rank_tolerance: float
) -> Tensor:
    """Powell's dogleg of a convex model: along steepest descent to its minimum, then to that of the model."""
    tiny = torch.finfo(values.dtype).tiny
    newton = model_minimum(values, coefficients, rank_tolerance)
    curvature = (values * coefficients**2).sum(dim=1).clamp(min=tiny)
    share = (coefficients**2).sum(dim=1) / curvature
    cauchy = -share.unsqueeze(1) * coefficients
    length, reach = _norm(newton), _norm(cauchy)
    onward = newton - cauchy
    along, whole = (cauchy * onward).sum(dim=1), (onward**2).sum(dim=1)
    room = (radius - reach) * (radius + reach)
    root = (along**2 + whole * room).clamp(min=0.0).sqrt()
    part = (room / (along + root).clamp(min=tiny)).clamp(0.0, 1.0)
    bent = cauchy + part.unsqueeze(1) * onward
    short = (radius / reach.clamp(min=tiny)).unsqueeze(1) * cauchy
    step = torch.where((reach >= radius).unsqueeze(1), short, bent)
    return torch.where((length <= radius).unsqueeze(1), newton, step)


def straight_step(
    values: Tensor, coefficients: Tensor, radius: Tensor, rank_tolerance: float
) -> Tensor:
    """The step to the model's minimum, no longer than the radius."""
    newton = model_minimum(values, coefficients, rank_tolerance)
    part = radius / _norm(newton).clamp(min=torch.finfo(values.dtype).tiny)
    return part.clamp(max=1.0).unsqueeze(1) * newton


def _shifted(values: Tensor, coefficients: Tensor, shift: Tensor) -> Tensor:
    denominator = values + shift.unsqueeze(1)
    tiny = torch.finfo(values.dtype).tiny
    return -coefficients / torch.where(denominator > tiny, denominator, tiny)


def _filled(y: Tensor, radius: Tensor, negative: Tensor) -> Tensor:
    """The step, lengthened to the radius along the first eigenvector where its eigenvalue is negative."""
    missing = (radius**2 - (y**2).sum(dim=1)).clamp(min=0.0)
    first = y[:, 0]
    # The root of (y₀ + t)² = y₀² + missing in the direction that y₀ has.
    sign = torch.where(first >= 0, 1.0, -1.0).to(y.dtype)
    filled = sign * (first**2 + missing).sqrt()
    long = (missing > (2 * _NEAR) * radius**2) & negative & torch.isfinite(filled)
    return torch.cat((torch.where(long, filled, first).unsqueeze(1), y[:, 1:]), dim=1)


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)
