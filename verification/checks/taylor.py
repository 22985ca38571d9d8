"""Check: the orders of Taylor remainders.

Let `φ(t) = ⟨w, y(x + t v)⟩`. The remainders of orders 0, 1 and 2, `φ(t) − φ(0)`, then less `t ⟨g, v⟩`, then
less `½ t² ⟨v, H v⟩`, fall like `t`, `t²` and `t³` if the gradient `g` and the second derivative `H` are right
(Farrell et al. 2013, section 6; Griewank & Walther 2008). The order is fitted, with a
confidence interval, to remainders above the noise floor and above the part that floor and slack of `g` and
`H` explain. An order that is lower with confidence is an error, as large as the slowest term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..differences import HALF_WIDTH
from ..evidence import Evidence
from ..fitting import Estimate, median_slope
from ..real import real
from ..session import NotExercisedError, Session
from ..subject import LayerError
from .gradient_differences import SOLVES
from .measuring import Measured, columns_of, doubt_of, measured
from .second_order import label, second_derivatives

NAME = "Taylor remainders"
_STEPS = np.geomspace(1e-5, 1e-1, 13)
_ABOVE = 1e2
"""Only remainders above this multiple of the noise are used."""
_FEWEST = 4


def fitted_order(t: np.ndarray, remainders: np.ndarray) -> Estimate:
    """The order of `remainders`, all positive, in `t`, with an interval of 99 % confidence.

    The fit is robust to a remainder that changes its sign.

    Examples:
        >>> t = np.geomspace(1e-3, 1e-1, 8)
        >>> print(f"{fitted_order(t, 3 * t**2):.2f}")
        2.00 (2.00 to 2.00)
    """
    return median_slope(np.log(t), np.log(remainders))


def taylor(session: Session) -> list[Evidence]:
    """A piece of evidence for each output and slot, and another one for second derivatives.

    Raises:
        NotExercisedError: No remainder rises above the noise.
    """
    found: list[Evidence] = []
    for s in range(len(session.slots)):
        try:
            along = measured(session, (s,), 0)
            samples = _sampled(along, session.size(s), _rounding(session, s))
        except (ArithmeticError, LayerError):
            continue
        direction, doubt = real(session.direction(s, 0)), doubt_of(session, s)
        for o in range(len(session.outputs)):
            column = columns_of(session).index((0, o))
            if along.slope.jump[column] > 0:
                continue  # At a kink every gradient leaves a remainder of order 1.
            slope = float((session.gradients[0][o][s] * direction).sum())
            try:
                twice: float | None = second_derivatives(session, o, s)
            except NotExercisedError:
                twice = None
            found += _orders(session, s, o, samples.column(column), slope, twice, doubt)
    if not found:
        raise NotExercisedError("no Taylor remainder rises above the noise")
    return found


def _rounding(session: Session, s: int) -> float:
    """Precision of the values; those of a polished root and of a float64 copy are in float64."""
    if session.residual is not None:
        condition = session.roots[1].inverse.condition or 1.0
        return float(np.finfo(float).eps) * condition
    if session.copy is not None:
        return float(np.finfo(float).eps)
    return max(torch.finfo(session.precision(o, s)).eps for o in range(len(session.outputs)))


@dataclass(frozen=True)
class _Samples:
    t: np.ndarray
    centre: np.ndarray
    ahead: np.ndarray
    noise: np.ndarray

    def column(self, column: int) -> _Samples:
        return _Samples(self.t, self.centre[column], self.ahead[:, column], self.noise[column])


def _sampled(along: Measured, size: float, eps: float) -> _Samples:
    """Samples within the distance over which the differences found the layer smooth."""
    centre = along.sample(0.0)
    steps, ahead = [], []
    reach = HALF_WIDTH * float(along.slope.reach.min())
    for t in _STEPS[reach >= _STEPS]:
        try:
            here = along.sample(float(t))
        except ArithmeticError:
            break
        if not np.isfinite(here).all():
            break
        steps.append(float(t) * size)
        ahead.append(here)
    if len(steps) < _FEWEST:
        raise ArithmeticError("too few steps have values")
    largest = np.maximum(np.abs(centre), np.abs(np.array(ahead)).max(axis=0))
    noise = eps * np.maximum(largest, along.natural)
    found = np.where(along.slope.noisy <= along.slope.reach, along.slope.noise, 0.0)
    return _Samples(np.array(steps), centre, np.array(ahead), np.maximum(noise, found))


def _orders(
    session: Session,
    s: int,
    o: int,
    samples: _Samples,
    slope: float,
    twice: float | None,
    doubt: float,
) -> list[Evidence]:
    output, slot = session.outputs[o], session.slots[s].name
    t, scale = samples.t, session.weighted(s, session.gradients[0][o][s])
    change = samples.ahead - samples.centre
    first = change - t * slope
    floor, slack, lag = (
        session.relative_floor(o, s),
        session.relative_slack(o, s),
        SOLVES * session.lag,
    )
    explained = floor + lag * slack + doubt
    by_gradient = t * (explained * scale + session.gradient_noise(0, o, s))
    by_both = by_gradient + t**2 * explained * scale / session.size(s)
    second = None if twice is None else first - 0.5 * t**2 * twice
    found = []
    for order, name, remainder, below, unit in (
        (1, output, change, 0 * t, scale),
        (2, output, first, by_gradient, scale),
        (3, label(output), second, by_both, scale / session.size(s)),
    ):
        if remainder is None:
            continue
        rises = np.abs(remainder) > _ABOVE * samples.noise + below
        if rises.sum() < _FEWEST:
            continue
        fit = fitted_order(t[rises], np.abs(remainder[rises]))
        low = fit.high < order - 0.5
        # The slowest term of the remainder, as a derivative.
        slowest = float((np.abs(remainder) / t ** max(order - 1, 1))[rises][0])
        found.append(
            Evidence(
                f"{NAME}, order {order}", name, slot,
                error=slowest if low else 0.0,
                scale=unit,
                floor=floor * unit + (session.gradient_noise(0, o, s) if order < 3 else 0.0),
                slack=slack * unit,
                lag=lag,
                doubt=doubt * unit,
                reference=False,
                detail=f"order {fit:.2f}, expected {order}",
            )
        )  # fmt: skip
        if low:
            break  # The next remainder has the same slow term.
    return found
