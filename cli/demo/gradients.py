"""Checks of a gradient: finite differences with a known noise floor, and the unrolled network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...verification.checks.measuring import TRUST
from ...verification.differences import WIDEST, slope
from ...verification.fitting import median_slope
from ...verification.polish import relative_distance
from ...verification.probes import probe, root_mean_square

Tensors = tuple[Tensor, ...]
Loss = Callable[[Tensors], Tensor]

# Target for the relative error of a directional derivative; further spacings are tried until it is met.
_ACCURATE = 1e-11


@dataclass(frozen=True)
class GradientCheck:
    """Comparison of a gradient with central differences along random directions.

    Attributes:
        error: Distance of the directional derivatives, relative to the measured ones.
        floor: Noise floor: relative error of the differences themselves.
        threshold: Sum of the floor and the gradient's own tolerance.
    """

    error: float
    floor: float
    threshold: float

    @property
    def passed(self) -> bool:
        return self.error <= self.threshold


def random_direction(at: Tensors, chosen: Sequence[bool], generator: torch.Generator) -> Tensors:
    """Normal numbers in the root-mean-square size of each chosen tensor, and zeros for the others."""
    return tuple(
        (root_mean_square(tensor) or 1.0) * probe(0, tensor, generator)
        if wanted
        else torch.zeros_like(tensor)
        for tensor, wanted in zip(at, chosen, strict=True)
    )


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
        at: Point of the gradient.
        gradient: The gradient to check, in the shapes of `at`.
        directions: Directions to differentiate along, each in the shapes of `at`.
        noise: Bound on the error of a value of `loss`.
        uncertainty: Bound on the relative error of `gradient`.
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
    """The derivative of `loss` along `direction`, and a bound on its error.

    The verifier's finite differences estimate their own error. The known noise of the loss, at the widest
    spacing, is added to it.
    """

    def sample(t: float) -> np.ndarray:
        moved = tuple(x.add(v, alpha=t) for x, v in zip(at, direction, strict=True))
        return np.array([float(loss(moved))])

    found = slope(sample, 1.0, relative=np.array([_ACCURATE]), size=np.array([0.0]))
    return float(found.value[0]), TRUST * float(found.error[0]) + noise / WIDEST


def distance(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest relative distance, in the Euclidean norm, of any tensor from its reference."""
    return max(map(relative_distance, gradient, reference))


@dataclass(frozen=True)
class DepthStudy:
    """Distance of an exact gradient from those of unrolled networks.

    Attributes:
        depths: Layers of the unrolled networks, increasing.
        errors: Distance at each depth, relative to the exact gradient.
        contraction: A bound on the norm of the cell's Jacobian.
        floor: Error of the exact gradient.
    """

    depths: tuple[int, ...]
    errors: tuple[float, ...]
    contraction: float
    floor: float

    @property
    def geometric(self) -> bool:
        """True if doubling a depth `k` always multiplied the error by `2 γᵏ` or less.

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
        """Best fit of `k ρᵏ` to the errors above the floor from depth 4 on: the `ρ`."""
        points = [
            (k, math.log(error / k))
            for k, error in zip(self.depths, self.errors, strict=True)
            if k >= 4 and error > 10 * self.floor
        ]
        if len(points) < 2:
            return math.nan
        depths, logarithms = np.array(points).T
        return math.exp(median_slope(depths, logarithms).value)
