"""Directional derivatives by finite differences that estimate their own error.

A function of one variable `t` is sampled at `t = −4h … 4h`. The nine samples give its noise
(`noise.py`) and central differences with steps `h … 4h`, extrapolated to the orders 4, 6 and 8. The
error of each is the last correction of the extrapolation (truncation) plus the noise that its weights
let through.

A derivative is a limit, so narrow spacings decide about wide ones. Two neighbouring spacings that agree
within their errors are evidence; a wider one that contradicts them has seen a kink or a jump on its way
and is dropped. Among the others the one with the smallest error is taken. Its `doubt` is the distance to
the nearest spacing that confirms it, or to all others if none does. A kink is not noise: between samples
that come closer and closer the change of a continuous function vanishes, and that of an iteration that
stops elsewhere does not (`jump_near`).

Sources: Richardson 1911 (extrapolation of central differences in h²; the weights are Fornberg 1988,
table 1); Moré & Wild 2012, Estimating derivatives of noisy simulations (step from noise).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
_RESERVE = (1e-6, 1e-8, 1e-1, 1e-10)
_CONTRADICTION = 8.0
_KINK = 0.3
_VISIBLE = 1e-3
"""A spacing shows a kink if one of this share of the slope would rise above rounding."""
_HALVINGS = 16
_STAYS = 1 / 16
"""A jump keeps at least this share of a change while its interval is halved again and again."""


@dataclass(frozen=True)
class Slope:
    """Derivatives at 0 of some functions of one variable, with their errors.

    Attributes:
        value: The derivatives, `(functions,)`.
        error: Estimates of their errors.
        doubt: Errors that they may have if no other spacing confirms them.
        noise: The noise of the functions themselves, the largest that any spacing shows.
        noisy: The spacing that shows it.
        jump: Jumps of the slope at 0: distances between the slopes on its two sides that persist as the
            spacing falls; 0 for a smooth function.
        constant: True where all samples were the same.
        flat: True where all samples of one spacing were the same.
        reach: The widest spacing that agrees with the derivative and shows no noise.
    """

    value: Array
    error: Array
    doubt: Array
    noise: Array
    noisy: Array
    jump: Array
    constant: Array
    flat: Array
    reach: Array


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


def slope(
    samples: Samples, scale: float, relative: Array, size: Array, rounding: Array | None = None
) -> Slope:
    """The derivatives at 0 of `samples(t)`, an array of the values of some functions.

    Args:
        samples: The functions; raises `ArithmeticError` at points without values.
        scale: Approximate length over which the functions change.
        relative: Target for the relative error of each function; further spacings are tried until it is met.
        size: Lower limit on the size that `relative` refers to.
        rounding: Rounding of each function's values; `None` for that of float64.

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
    least = np.zeros_like(centre) if rounding is None else rounding
    stencils: list[_Stencil] = []
    failure: ArithmeticError | None = None
    for count, spacing in enumerate((WIDEST, _SMALL, *_RESERVE)):
        if count >= 2 and stencils and _accurate(stencils, relative, size):
            break
        try:
            stencils.append(_stencil(samples, centre, spacing * scale, least))
        except ArithmeticError as error:
            failure = error
    if not stencils:
        raise ArithmeticError(f"no spacing of finite differences has values: {failure}")
    return _best(stencils)


def jump_near(samples: Samples, spacing: float, size: Array) -> float:
    """The largest jump of some functions within the stencil of a spacing; 0 if they are continuous there.

    The interval between two samples whose change differs most from those of its neighbours is halved, each
    time keeping the half that differs more. At a kink the difference falls with the length of the interval,
    and at a jump it stays.

    Args:
        samples: The functions.
        spacing: The distance of two samples.
        size: The size of each function, which its jump is relative to.

    Examples:
        >>> import numpy as np
        >>> for function in (lambda t: abs(t - 0.013), lambda t: t**2 + 0.5 * float(t > 0.013)):
        ...     print(round(jump_near(lambda t: np.array([function(t)]), 1e-2, np.ones(1)), 6))
        0.0
        0.5
    """
    size = np.maximum(size, np.finfo(float).tiny)
    times = spacing * np.arange(-HALF_WIDTH - 1, HALF_WIDTH + 2)
    table = np.stack([samples(float(t)) for t in times])
    if not np.isfinite(table).all():
        return 0.0
    change = np.diff(table, axis=0)
    smooth = (change[:-2] + change[2:]) / 2
    odd = np.abs(change[1:-1] - smooth) / size
    # A jump spoils the mean of its neighbours' intervals by half of its size.
    place, column = np.unravel_index(int(odd.argmax()), odd.shape)
    rate = float(smooth[place, column]) / spacing
    bend = float(change[place + 2, column] - change[place, column]) / (2 * spacing**2)
    a, b = float(times[place + 1]), float(times[place + 2])
    middle = (a + b) / 2

    def at(t: float) -> float:
        """The function less the parabola that continues its neighbours."""
        return float(samples(t)[column]) - rate * (t - middle) - bend * (t - middle) ** 2 / 2

    left, right = at(a), at(b)
    whole = abs(right - left)
    for _ in range(_HALVINGS):
        halfway = (a + b) / 2
        here = at(halfway)
        if abs(here - left) >= abs(right - here):
            b, right = halfway, here
        else:
            a, left = halfway, here
    last = abs(right - left)
    return last / float(size[column]) if last > _STAYS * whole else 0.0


def _accurate(stencils: Sequence[_Stencil], relative: Array, size: Array) -> bool:
    found = _best(stencils)
    target = relative * np.maximum(size, np.abs(found.value))
    met = (found.error <= target) & (
        found.doubt <= _CONTRADICTION * _VISIBLE * np.maximum(size, np.abs(found.value))
    )
    return bool((met | found.constant).all())


def _stencil(samples: Samples, centre: Array, h: float, least: Array) -> _Stencil:
    offsets = range(-HALF_WIDTH, HALF_WIDTH + 1)
    table = np.stack([centre if k == 0 else samples(k * h) for k in offsets])
    if not np.isfinite(table).all():
        raise ArithmeticError(f"values at distance {HALF_WIDTH * h:.1e} are not finite")
    noise = Noise.of(table)
    # The rounding of the values limits the accuracy of a difference.
    rounding = np.maximum(np.finfo(table.dtype).eps * np.abs(table).max(axis=0), least)
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
    ordered = sorted(stencils, key=lambda s: s.spacing)
    spacings = np.array([s.spacing for s in ordered])
    errors, values = np.stack([s.error for s in ordered]), np.stack([s.value for s in ordered])
    agree = np.abs(values[:, None] - values[None]) <= _CONTRADICTION * (
        errors[:, None] + errors[None]
    )
    kept = _uncontradicted(agree)
    chosen = np.where(kept, errors, np.inf).argmin(axis=0)
    columns = np.arange(errors.shape[1])
    value, error = values[chosen, columns], errors[chosen, columns]
    noise = np.stack([np.where(s.noise.found, s.noise.level, 0) for s in ordered])
    quiet = noise <= 64 * np.stack([s.rounding for s in ordered])
    return Slope(
        value=value,
        error=error,
        doubt=_doubt(chosen, agree[:, chosen, columns], values, errors),
        noise=noise.max(axis=0),
        noisy=spacings[noise.argmax(axis=0)],
        jump=_jump(ordered),
        constant=np.asarray(np.stack([s.equal for s in ordered]).all(axis=0)),
        flat=np.asarray(np.stack([s.equal for s in ordered]).any(axis=0)),
        reach=np.maximum(
            np.where(kept & quiet & agree[:, chosen, columns], spacings[:, None], 0).max(axis=0),
            spacings[chosen],
        ),
    )


def _uncontradicted(agree: Array) -> Array:
    """Mask of the spacings, narrowest first, that agree with every narrower pair of agreeing neighbours."""
    count = agree.shape[0]
    kept = np.ones(agree.shape[1:], bool)
    for pair in range(count - 1):
        sure = agree[pair, pair + 1]
        for wider in range(pair + 2, count):
            kept[wider] &= ~sure | (agree[wider, pair] & agree[wider, pair + 1])
    return kept


def _doubt(chosen: Array, agrees: Array, values: Array, errors: Array) -> Array:
    """Distance to the nearest confirming spacing, or to the farthest one if none confirms."""
    columns = np.arange(values.shape[1])
    distance = np.maximum(np.abs(values - values[chosen, columns]), errors)
    other = np.arange(len(values))[:, None] != chosen
    confirmed = np.where(other & agrees, distance, np.inf).min(axis=0)
    if len(values) == 1:
        return np.abs(values[0])
    farthest = np.where(other, distance, 0).max(axis=0)
    return np.where(np.isfinite(confirmed), confirmed, farthest)


def _jump(ordered: Sequence[_Stencil]) -> Array:
    """The jump of the slope at 0: a second difference over `h` that is independent of `h`.

    The second difference falls with `h` for a smooth function, and grows as `1/h` for noise. The narrowest
    spacing at which a kink would rise above rounding decides.
    """
    jump = np.zeros_like(ordered[0].value)
    undecided = np.ones(jump.shape, bool)
    for small, large in pairwise(ordered):
        size = np.maximum(np.abs(small.value), np.maximum(small.curvature, large.curvature))
        visible = _VISIBLE * size * small.spacing > 64 * small.rounding
        stays = (small.curvature > _KINK * large.curvature) & (
            small.curvature < large.curvature / _KINK
        )
        above = small.curvature * small.spacing > 64 * small.rounding
        here = undecided & visible
        jump = np.where(here & stays & above & small.straight, small.curvature, jump)
        undecided &= ~visible
    return jump
