"""Directional derivatives by finite differences that estimate their own error.

A function of one variable `t` is sampled at `t = −4h … 4h`. The nine samples give its noise
(`noise.py`) and central differences with steps `h … 4h`, extrapolated to the orders 4, 6 and 8. The
error of each is the last correction of the extrapolation (truncation) plus the noise that its weights
let through. Among orders and spacings the one with the smallest error is taken. If the
results of two spacings contradict each other, the error is raised to their distance.

Sources: Richardson 1911 (extrapolation of central differences in h²; the weights are Fornberg 1988,
table 1); Moré & Wild 2012, Estimating derivatives of noisy simulations (step from noise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .noise import Noise

Array = np.ndarray
Samples = Callable[[float], Array]

HALF_WIDTH = 4
# Weights of f(kh) − f(−kh), k = 1 … 4, by order of accuracy.
_WEIGHTS = np.array(
    [
        [1 / 2, 0, 0, 0],
        [2 / 3, -1 / 12, 0, 0],
        [3 / 4, -3 / 20, 1 / 60, 0],
        [4 / 5, -1 / 5, 4 / 105, -1 / 280],
    ]
)
WIDEST, _SMALL = 1e-2, 1e-4
_RESERVE = (1e-6, 1e-1, 1e-8)
_CONTRADICTION = 8.0
_KINK = 0.3


@dataclass(frozen=True)
class Slope:
    """Derivatives at 0 of some functions of one variable, with their errors.

    Attributes:
        value: The derivatives, `(functions,)`.
        error: Estimates of their errors.
        noise: The noise of the functions themselves, the largest that any spacing shows.
        jump: Jumps of the slope at 0: distances between the slopes on its two sides that persist as the
            spacing falls; 0 for a smooth function.
        constant: True where all samples were the same.
    """

    value: Array
    error: Array
    noise: Array
    jump: Array
    constant: Array


@dataclass(frozen=True)
class _Stencil:
    spacing: float
    value: Array
    error: Array
    noise: Noise
    curvature: Array
    """`(f(h) − 2 f(0) + f(−h)) / h`: of order h for a smooth function, the jump at a kink."""
    straight: Array
    """True where the even part grows like `|t|`, as at a kink."""
    equal: Array
    rounding: Array
    """Rounding of the values themselves."""


def slope(samples: Samples, scale: float, relative: Array, size: Array) -> Slope:
    """The derivatives at 0 of `samples(t)`, an array of the values of some functions.

    Args:
        samples: The functions; raises `ArithmeticError` at points without values.
        scale: Approximate length over which the functions change.
        relative: Target for the relative error of each function; further spacings are tried until it is met.
        size: Lower limit on the size that `relative` refers to.

    Raises:
        ArithmeticError: No spacing gave values.

    Examples:
        >>> import numpy as np
        >>> one = np.ones(1)
        >>> found = slope(lambda t: np.array([np.sin(t)]), 1.0, 1e-9 * one, one)
        >>> bool(abs(found.value[0] - 1) < 1e-12), bool(found.error[0] < 1e-11)
        (True, True)
    """
    centre = samples(0.0)
    stencils: list[_Stencil] = []
    failure: ArithmeticError | None = None
    for count, spacing in enumerate((WIDEST, _SMALL, *_RESERVE)):
        if count >= 2 and stencils and _accurate(stencils, relative, size):
            break
        try:
            stencils.append(_stencil(samples, centre, spacing * scale))
        except ArithmeticError as error:
            failure = error
    if not stencils:
        raise ArithmeticError(f"no spacing of finite differences has values: {failure}")
    return _best(stencils)


def _accurate(stencils: Sequence[_Stencil], relative: Array, size: Array) -> bool:
    found = _best(stencils)
    target = relative * np.maximum(size, np.abs(found.value))
    return bool(((found.error <= target) | found.constant | (found.jump > 0)).all())


def _stencil(samples: Samples, centre: Array, h: float) -> _Stencil:
    values = [centre if k == 0 else samples(k * h) for k in range(-HALF_WIDTH, HALF_WIDTH + 1)]
    table = np.stack(values)
    if not np.isfinite(table).all():
        raise ArithmeticError(f"values at distance {HALF_WIDTH * h:.1e} are not finite")
    noise = Noise.of(table)
    # The rounding of the values limits the accuracy of a difference.
    rounding = np.finfo(table.dtype).eps * np.abs(table).max(axis=0)
    level = np.maximum(noise.level, rounding / 4)
    odd = table[HALF_WIDTH + 1 :] - table[HALF_WIDTH - 1 :: -1]
    slopes = _WEIGHTS @ odd / h
    corrections = np.abs(np.diff(slopes, axis=0))
    passed = np.sqrt(2 * (_WEIGHTS[1:] ** 2).sum(axis=1))[:, None] * level / h
    errors = corrections + passed
    chosen = errors.argmin(axis=0)
    columns = np.arange(table.shape[1])
    return _Stencil(
        spacing=h,
        value=slopes[1:][chosen, columns],
        error=errors[chosen, columns],
        noise=Noise(level, noise.found),
        curvature=np.abs(table[HALF_WIDTH + 1] - 2 * centre + table[HALF_WIDTH - 1]) / h,
        straight=_straight(table, centre),
        equal=(table == centre).all(axis=0),
        rounding=rounding,
    )


def _straight(table: Array, centre: Array) -> Array:
    """True where `f(t) + f(−t) − 2 f(0)` is proportional to `|t|` within a half."""
    even = table[HALF_WIDTH + 1 :] + table[HALF_WIDTH - 1 :: -1] - 2 * centre
    per_step = even / np.arange(1, HALF_WIDTH + 1)[:, None]
    least, most = per_step.min(axis=0), per_step.max(axis=0)
    size = np.maximum(np.abs(least), np.abs(most))
    return np.asarray((least * most > 0) & (most - least <= 0.5 * size))


def _best(stencils: Sequence[_Stencil]) -> Slope:
    errors = np.stack([s.error for s in stencils])
    values = np.stack([s.value for s in stencils])
    columns = np.arange(errors.shape[1])
    chosen = errors.argmin(axis=0)
    value, error = values[chosen, columns], errors[chosen, columns]
    distance = np.abs(values - value)
    contradicts = distance > _CONTRADICTION * (errors + error)
    error = np.maximum(error, np.where(contradicts, distance, 0).max(axis=0))
    return Slope(
        value=value,
        error=error,
        noise=np.stack([np.where(s.noise.found, s.noise.level, 0) for s in stencils]).max(axis=0),
        jump=_jump(stencils),
        constant=np.asarray(np.stack([s.equal for s in stencils]).all(axis=0)),
    )


def _jump(stencils: Sequence[_Stencil]) -> Array:
    """The jump of the slope at 0: a second difference over `h` that is independent of `h`.

    The second difference falls with `h` for a smooth function, and grows as `1/h` for noise.
    """
    ordered = sorted(stencils, key=lambda s: s.spacing)
    if len(ordered) < 2:
        return np.zeros_like(ordered[0].value)
    small, large = ordered[0], ordered[1]
    stays = (small.curvature > _KINK * large.curvature) & (
        small.curvature < large.curvature / _KINK
    )
    above = small.curvature * small.spacing > 64 * small.rounding
    return np.where(stays & above & small.straight, small.curvature, 0.0)
