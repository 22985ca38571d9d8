"""`all_roots`: the roots of a scalar equation in an interval, with a proof that there are no others.

On a piece `[c − r, c + r]` with `|F''| ≤ K` Taylor's theorem gives, for every `z` of the piece,

    |F(z)| ≥ |F(c)| − |F'(c)| r − K r² / 2        no root if that is positive
    |F'(z)| ≥ |F'(c)| − K r                       at most one root if that is positive

Pieces of which neither can be told are halved. Neighbours on which `F'` has the same sign are joined; a
joined piece has exactly one root if `F` changes its sign over it, and none otherwise. Pieces that stay
undecided at the smallest width are reported: a multiple root is always in one.

Source: Moore, Kearfott & Cloud 2009, chapters 6 and 8 (exclusion and uniqueness; here with a bound on the
second derivative in place of interval arithmetic).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_integer, is_number
from ...solvers import Bracketing, GivenSolution, Solution, Stopping
from ..equations.differentiation import pullback
from ..functional import root
from ..gradients import Gradient
from ..surroundings.arguments import describe
from ..surroundings.compilation import outside_of_graphs
from .deflation import Roots
from .equation import CurveEquation
from .modes import outside_of_inference

# Pieces narrower than this part of the interval are not halved any more.
_NARROWEST = 2.0**-30
# The interval begins as so many pieces.
_FIRST_PIECES = 64
# Rounding of F, in units of rounding of the terms that a value and its derivative show.
_ROUNDING_UNITS = 64


@outside_of_graphs
@outside_of_inference
def all_roots(
    F: Callable[..., Tensor],
    lower: float,
    upper: float,
    *args: Any,
    curvature: float | None = None,
    samples: int = 1000,
    max_pieces: int = 100_000,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
) -> Roots:
    """All roots of a scalar equation `F(z, *args) = 0` with `lower ≤ z ≤ upper`, each differentiable in
    `args`.

    With a `curvature`, a bound on `|F''|` over the interval that you know, `Roots.complete` is a proof:
    true, there are exactly these roots, all simple; false, others may lie in `Roots.unresolved` and nowhere
    else. The proof holds for the exact values of `F`; rounding is allowed for by 64 units of the terms that
    `F` and `F'` show. It is as good as the bound: one that is too small is noticed only where it
    contradicts the values of `F'` that are seen.

    Without it, roots are found where `F` changes its sign between `samples` points. `complete` is then
    false: two roots between two points, and roots at which `F` does not change its sign, are missed.

    Args:
        F: Gives the residual of many points at once, entry by entry: a tensor `(k,)` for a tensor `(k,)`.
        lower: The least `z`.
        upper: The largest `z`.
        args: Further arguments of `F`, the same for all points.
        curvature: A bound on `|F''|` in the interval, or `None`.
        samples: The number of points without a bound.
        max_pieces: The most pieces that are examined together; beyond, the rest is reported as unresolved.
        dtype: The dtype of `z`.
        device: Its device.
        stopping: Tolerances of the roots; see `root`.
        gradient: Gradient mode of the roots; `None` for `Exact()`.

    Returns:
        The roots in ascending order.

    Raises:
        TypeError: `F` is not callable or returns no tensor of this dtype.
        ValueError: The bounds are crossed or not finite, an option is out of range, `F` has another shape
            or is not finite in the interval, or `curvature` is smaller than `|F''|` is seen to be.
        RuntimeError: A transform of `torch.func` is active.

    Source: Moore, Kearfott & Cloud 2009, chapters 6 and 8; Chandrupatla 1997 (bracketing).

    Examples:
        >>> import torch, implicitly
        >>> a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        >>> F = lambda z, a: torch.sin(a * z)  # |F''| ≤ 1
        >>> roots = implicitly.all_roots(F, 1.0, 10.0, a, curvature=1.0)
        >>> roots.z[-1].backward()
        >>> [round(z, 6) for z in roots.z.tolist()], roots.complete, round(a.grad.item(), 6)  # −3π
        ([3.141593, 6.283185, 9.424778], True, -9.424778)
    """
    for name, value in (("lower", lower), ("upper", upper)):
        if not is_number(value, -float("inf")):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
    if not lower < upper:
        raise ValueError(f"lower must be below upper, got lower={lower!r}, upper={upper!r}")
    if curvature is not None and not is_number(curvature, 0):
        raise ValueError(f"curvature must be a number ≥ 0 or None, got {curvature!r}")
    check_integer("samples", samples, 2)
    check_integer("max_pieces", max_pieces, _FIRST_PIECES)
    like = torch.empty(0, dtype=dtype, device=device)
    equation = CurveEquation.of(lambda z, _, *args: F(z, *args), like.new_zeros(2), args)
    function = _Scalar(equation.constant(), describe(F))
    with torch.no_grad():
        if curvature is None:
            ends = torch.linspace(lower, upper, samples, dtype=dtype, device=device)
            brackets = _sampled(function, ends)
            complete, unresolved = False, like.new_empty(0, 2)
            reason = f"changes of sign between {samples} points; completeness is not proved"
        else:
            cover = _covered(function, float(lower), float(upper), curvature, max_pieces, like)
            brackets, unresolved = cover.brackets(function), cover.undecided
            complete = len(unresolved) == 0
            reason = f"{len(cover.low)} monotone pieces by |F''| ≤ {curvature:g}"
    return _solved(F, args, brackets, stopping, gradient, complete, unresolved, reason)


@dataclass(frozen=True)
class _Scalar:
    """A scalar function of many points, checked."""

    equation: CurveEquation
    described: str

    def __call__(self, z: Tensor) -> Tensor:
        value = self.equation.function(z, None, *self.equation.args)
        if not isinstance(value, Tensor) or value.dtype != z.dtype:
            what = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{self.described} must return a tensor of {z.dtype}, got {what}")
        if value.shape != z.shape:
            raise ValueError(
                f"{self.described} must give a value for each point, of shape {tuple(z.shape)}, got "
                f"{tuple(value.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            place = z[~torch.isfinite(value)][0]
            raise ValueError(
                f"{self.described} must be finite in the interval, got {value} at {place}"
            )
        return value

    def with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`F` and `F'`."""
        (value,), back = pullback(lambda z: (self(z),), (z,))
        return value.detach(), back((torch.ones_like(value),))[0]


@dataclass(frozen=True)
class _Cover:
    """Pieces on which `F'` has one sign, and those that are not decided."""

    low: Tensor
    high: Tensor
    undecided: Tensor

    def brackets(self, function: _Scalar) -> Tensor:
        """The pieces over which the function changes its sign, `(k, 2)`."""
        first, last = function(self.low), function(self.high)
        changes = first.sign() * last.sign() <= 0
        return torch.stack((self.low, self.high), dim=1)[changes]


def _covered(
    function: _Scalar, lower: float, upper: float, curvature: float, most: int, like: Tensor
) -> _Cover:
    """The interval in pieces that have no root (left out), one at most, or are undecided."""
    ends = torch.linspace(lower, upper, _FIRST_PIECES + 1, dtype=like.dtype, device=like.device)
    low, high = ends[:-1], ends[1:]
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    undecided = []
    eps = torch.finfo(like.dtype).eps
    while len(low):
        middle, radius = (low + high) / 2, (high - low) / 2 * (1 + 4 * eps)
        value, slope = function.with_slope(middle)
        _check_curvature(middle, slope, curvature, eps)
        noise = _ROUNDING_UNITS * eps * (value.abs() + slope.abs() * (middle.abs() + radius))
        without = value.abs() > slope.abs() * radius + curvature * radius**2 / 2 + noise
        monotone = slope.abs() * (1 - _ROUNDING_UNITS * eps) > curvature * radius
        kept.append(
            (low[monotone & ~without], high[monotone & ~without], slope[monotone & ~without])
        )
        left = ~(monotone | without)
        low, middle, high = low[left], middle[left], high[left]
        finest = (high - low) <= _NARROWEST * (upper - lower)
        if 2 * len(low) > most:
            finest = torch.ones_like(finest)
        undecided.append(torch.stack((low[finest], high[finest]), dim=1))
        low, middle, high = low[~finest], middle[~finest], high[~finest]
        low, high = torch.cat((low, middle)), torch.cat((middle, high))
    starts, stops, slopes = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return _joined(starts, stops, slopes, torch.cat(undecided))


def _joined(low: Tensor, high: Tensor, slope: Tensor, undecided: Tensor) -> _Cover:
    """Neighbours of one sign of the slope joined, and undecided neighbours."""
    order = low.argsort()
    low, high, sign = low[order], high[order], slope[order].sign()
    begins = torch.ones_like(low, dtype=torch.bool)
    begins[1:] = (low[1:] != high[:-1]) | (sign[1:] != sign[:-1])
    ends = torch.ones_like(begins)
    ends[:-1] = begins[1:]
    rest = undecided[undecided[:, 0].argsort()]
    starts = torch.ones_like(rest[:, 0], dtype=torch.bool)
    starts[1:] = rest[1:, 0] != rest[:-1, 1]
    stops = torch.ones_like(starts)
    stops[:-1] = starts[1:]
    return _Cover(low[begins], high[ends], torch.stack((rest[starts, 0], rest[stops, 1]), dim=1))


def _check_curvature(z: Tensor, slope: Tensor, curvature: float, eps: float) -> None:
    """Raise a `ValueError` where slopes differ by more than the bound on the second derivative allows."""
    if len(z) < 2:
        return
    order = z.argsort()
    rise, run = slope[order].diff().abs(), z[order].diff()
    noise = _ROUNDING_UNITS * eps * slope.abs().max()
    seen = ((rise - noise) / run.clamp(min=torch.finfo(z.dtype).tiny))[run > 0]
    if len(seen) and float(seen.max()) > curvature * (1 + 1e-6):
        raise ValueError(
            f"curvature must bound |F''| in the interval: it is {curvature:g}, and slopes at two points show "
            f"{float(seen.max()):.6g}"
        )


def _sampled(function: _Scalar, ends: Tensor) -> Tensor:
    """Neighbouring points between which the function changes its sign, `(k, 2)`; a zero counts once."""
    value = function(ends)
    sign = value.sign()
    changes = (sign[:-1] * sign[1:] < 0) | (sign[:-1] == 0)
    brackets = torch.stack((ends[:-1], ends[1:]), dim=1)[changes]
    if bool(sign[-1] == 0):
        brackets = torch.cat((brackets, ends[-2:].unsqueeze(0)))
    return brackets


def _solved(
    F: Callable[..., Tensor],
    args: tuple[Any, ...],
    brackets: Tensor,
    stopping: Stopping | None,
    gradient: Gradient | None,
    complete: bool,
    unresolved: Tensor,
    reason: str,
) -> Roots:
    """The root in each bracket, with its derivatives; brackets in which rounding hides it are unresolved."""
    solutions: list[Solution] = []
    hidden = []
    solve = partial(
        root, F, stopping=stopping, gradient=gradient, batch_dims=1, on_failure="accept"
    )
    for low, high in brackets.tolist():
        start = brackets.new_tensor([(low + high) / 2])
        solver = Bracketing(lower=low, upper=high)
        solution = solve(start, *args, solver=solver)
        if not bool(solution.converged.all()):
            # Beside a double root the bracket is so narrow that all of it is rounding: the value is judged.
            found = solution.value.detach()
            solution = solve(found, *args, solver=GivenSolution())
        if bool(solution.converged.all()):
            solutions.append(solution)
        else:
            hidden.append((low, high))
    values = [solution.value[0] for solution in solutions]
    z = torch.stack(values) if values else brackets.new_empty(0)
    if hidden:
        unresolved = torch.cat((unresolved, brackets.new_tensor(hidden)))
    return Roots(z, tuple(solutions), complete and not hidden, unresolved, (reason,))
