"""Is a gradient right? Finite differences with a known noise floor, and the unrolled network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Loss = Callable[[Tensors], Tensor]

# The steps tried, in units of a direction: from where rounding rules to where truncation does.
_STEPS = tuple(1e-4 * 2.0**k for k in range(7))
# The five-point formula adds up values with weights of 2 (8 + 1) / (12 h) = 1.5 / h together, and
# its extrapolation with weights of (16/15 + 1/30) · 1.5 / h.
_NOISE_AMPLIFICATION = 1.65


@dataclass(frozen=True)
class GradientCheck:
    """A gradient beside central differences along random directions.

    Attributes:
        error: Distance of the directional derivatives, relative to the measured ones.
        floor: What the differences themselves may be wrong by, in the same unit: the noise floor.
        threshold: The floor and the gradient's own tolerance together.
    """

    error: float
    floor: float
    threshold: float

    @property
    def passed(self) -> bool:
        return self.error <= self.threshold


def random_direction(at: Tensors, chosen: Sequence[bool], generator: torch.Generator) -> Tensors:
    """Normal numbers in the root-mean-square size of each chosen tensor, and zeros for the others."""

    def draw(tensor: Tensor, wanted: bool) -> Tensor:
        if not wanted:
            return torch.zeros_like(tensor)
        size = tensor.square().mean().sqrt()
        scale = torch.where(size > 0, size, 1.0)
        return scale * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    return tuple(draw(tensor, wanted) for tensor, wanted in zip(at, chosen, strict=True))


def check_gradient(
    loss: Loss,
    at: Tensors,
    gradient: Tensors,
    directions: Sequence[Tensors],
    *,
    noise: float,
    uncertainty: float,
) -> GradientCheck:
    """Compare `gradient` with central differences of `loss` at `at`.

    Args:
        loss: A smooth scalar function.
        at: Where the gradient was taken.
        gradient: The gradient to check, in the shapes of `at`.
        directions: Along what to differentiate, each in the shapes of `at`.
        noise: By how much a value of `loss` may be wrong.
        uncertainty: By how much `gradient` may be wrong, as a part of itself.
    """
    with torch.no_grad():
        measured = [directional_derivative(loss, at, v, noise=noise) for v in directions]
    predicted = [
        sum(float((g * part).sum()) for g, part in zip(gradient, v, strict=True))
        for v in directions
    ]
    size = math.hypot(*(value for value, _ in measured))
    floor = math.hypot(*(error for _, error in measured)) / size
    differences = (p - value for p, (value, _) in zip(predicted, measured, strict=True))
    return GradientCheck(math.hypot(*differences) / size, floor, floor + uncertainty)


def directional_derivative(
    loss: Loss, at: Tensors, direction: Tensors, *, noise: float
) -> tuple[float, float]:
    """The derivative of `loss` along `direction`, and what it may be wrong by.

    Five-point differences with steps that double, extrapolated once (Richardson). The error of each is
    the noise in the loss, carried through the formula, and the whole of the last correction for the
    truncation; the step with the smallest error is taken.
    """

    def odd_part(t: float) -> float:
        up, down = (
            float(loss(tuple(x.add(v, alpha=s) for x, v in zip(at, direction, strict=True))))
            for s in (t, -t)
        )
        return up - down

    odd = [odd_part(h) for h in _STEPS]
    five_point = [(8 * odd[k] - odd[k + 1]) / (12 * h) for k, h in enumerate(_STEPS[:-1])]
    estimates = []
    for h, narrow, wide in zip(_STEPS, five_point, five_point[1:], strict=False):
        correction = (narrow - wide) / 15
        estimates.append((narrow + correction, _NOISE_AMPLIFICATION * noise / h + abs(correction)))
    return min(estimates, key=lambda estimate: estimate[1])


def distance(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest relative distance, in the Euclidean norm, of any tensor from its reference."""
    return max(
        float(torch.linalg.vector_norm(g - r) / torch.linalg.vector_norm(r))
        for g, r in zip(gradient, reference, strict=True)
    )


@dataclass(frozen=True)
class DepthStudy:
    """Distance of an exact gradient from those of unrolled networks.

    Attributes:
        depths: Layers of the unrolled networks, increasing.
        errors: Distance at each depth, relative to the exact gradient.
        contraction: A bound on the norm of the cell's Jacobian.
        floor: What the exact gradient may be wrong by.
    """

    depths: tuple[int, ...]
    errors: tuple[float, ...]
    contraction: float
    floor: float

    @property
    def geometric(self) -> bool:
        """Whether twice the depth `k` always multiplied the error by `2 γᵏ` or less.

        The error at depth `k` is of the order `k γᵏ`: a truncated series, and `k` derivatives taken
        at iterates on their way to the solution.
        """
        at = dict(zip(self.depths, self.errors, strict=True))
        return all(math.isfinite(error) for error in self.errors) and all(
            at[2 * k] <= 2 * self.contraction**k * error + self.floor
            for k, error in at.items()
            if 2 * k in at
        )

    @property
    def rate(self) -> float:
        """The `ρ` for which `k ρᵏ` fits the errors above the floor best, from depth 4 on."""
        points = [
            (k, math.log(error / k))
            for k, error in zip(self.depths, self.errors, strict=True)
            if k >= 4 and error > 10 * self.floor
        ]
        if len(points) < 2:
            return math.nan
        x = torch.tensor([float(k) for k, _ in points], dtype=torch.float64)
        y = torch.tensor([value for _, value in points], dtype=torch.float64)
        x = x - x.mean()
        return math.exp(float((x * y).sum() / (x * x).sum()))
