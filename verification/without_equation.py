"""Diagnosis without the equation: mistakes are tried on the measured Jacobian of a small wrong tensor.

With the Jacobian the right gradient of every cotangent is known, and also the gradients of clipped
cotangents, of single rows, and at other points. Of a large tensor only directional derivatives are known:
there a zero, a factor, a clip and a straight-through estimator are recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .checks.measuring import CENTRAL, Measured, claimed, columns_of, moved_outputs, quick
from .real import real, widened
from .recognition import (
    EXPLAINED,
    Pairs,
    added,
    after_the_adjoint,
    clipped,
    in_places,
    matches,
    named_factor,
)
from .session import Session
from .subject import LayerError

_OUTPUTS = 4096
"""The Jacobian of at most so many outputs is measured."""
_CALLS = {False: 320, True: 4096}
"""Calls of the layer that diagnoses may take in all, with fast and with full effort."""
_FEW = 32
_STEP = 1e-4
_STALE = 6
_FLAT = 1e-6


def without_equation(session: Session, o: int, s: int) -> str:
    """The likely cause of a wrong gradient in one slot, or an empty string."""
    cotangents = range(session.cotangents)
    says = [session.gradients[k][o][s] for k in cotangents]
    if not all(bool(torch.isfinite(g).all()) for g in says):
        return "the gradient is not finite: a branch that is masked out later has an infinite derivative"
    if all(not bool(g.any()) for g in says):
        return "the gradient is zero: the tensor was dropped or detached"
    if cause := _straight_through(session, o, s) or _factor_along(session, o, s):
        return cause
    try:
        jacobian = _jacobian(session, o, s)
    except (ArithmeticError, LayerError):
        jacobian = None
    if jacobian is not None:
        weights = [real(session.probes[k][o]).reshape(-1) for k in cotangents]
        pairs = [(g, (jacobian @ w).reshape(g.shape)) for g, w in zip(says, weights, strict=True)]
        if all(float((g - r).norm()) == 0 for g, r in pairs):
            return ""
        cause = (
            after_the_adjoint(session, o, s, pairs)
            or added(session, s, pairs)
            or clipped(pairs)
            or _other_cotangents(session, o, pairs, jacobian, weights)
            or _stale(session, o, s, pairs, weights)
            or in_places(pairs)
        )
        if cause:
            return cause
    return _right_when_small(session, o, s)


def _jacobian(session: Session, o: int, s: int, shrunk: float = 0.0) -> Tensor | None:
    """Derivatives of an output in each entry of a slot, `(entries, outputs)`; `None` if there are too many.

    Args:
        session: The verification.
        o: The output.
        s: The slot.
        shrunk: The share by which all inputs are moved towards zero.
    """
    value = session.slots[s].value
    like = real(value)
    calls = 2 * len(CENTRAL) * like.numel()
    if (
        session.spent + calls > _CALLS[session.full]
        or real(session.tape.values[o]).numel() > _OUTPUTS
    ):
        return None
    session.spent += calls
    moved = moved_outputs(session)
    shares = session.shares(s)
    lengths = torch.full(like.shape, session.size(s), dtype=torch.float64)
    if shares is not None:
        lengths = lengths * shares.reshape(shares.shape + (1,) * (like.ndim - shares.ndim))
    base = {
        i: -shrunk * slot.value
        for i, slot in enumerate(session.slots)
        if slot.position is not None and shrunk
    }
    rows = []
    for entry in range(like.numel()):
        h = _STEP * float(lengths.reshape(-1)[entry])
        unit = torch.zeros(like.numel(), dtype=torch.float64)
        unit[entry] = h
        step = unit.reshape(like.shape)
        step = torch.view_as_complex(step) if value.is_complex() else step

        def at(k: int, step: Tensor = step) -> Tensor:
            steps = {**base, s: base.get(s, 0) + k * step}
            return real(moved(steps, 1.0)[o]).reshape(-1)

        rows.append(sum(c * (at(k) - at(-k)) for k, c in CENTRAL) / h)
    found = torch.stack([torch.as_tensor(row) for row in rows])
    return found if bool(torch.isfinite(found).all()) else None


def _other_cotangents(
    session: Session, o: int, pairs: Pairs, jacobian: Tensor, weights: list[Tensor]
) -> str:
    """Mistakes made with the cotangent: one row alone, or a clip."""
    says, right = [g for g, _ in pairs], [r for _, r in pairs]

    def pulled(change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [(jacobian @ change(w)).reshape(g.shape) for w, g in zip(weights, says, strict=True)]

    shape = real(session.tape.values[o]).shape
    if len(shape) > 1 and shape[0] > 1:
        for row in (0, shape[0] - 1):
            mask = torch.zeros(shape, dtype=torch.float64)
            mask[row] = 1.0
            alone = mask.reshape(-1)
            if matches(says, right, pulled(partial(torch.mul, alone))):
                return f"a missing reduction: only row {row} of the batch counts"
    largest = max(float(w.abs().max()) for w in weights)
    bounds = torch.linspace(0.02, 0.98, 49, dtype=torch.float64) * largest

    def off(bound: float) -> float:
        candidates = pulled(lambda w: w.clamp(-bound, bound))
        return max(float((g - c).norm()) for g, c in zip(says, candidates, strict=True))

    bound = float(min(bounds, key=lambda b: off(float(b))))
    width = float(bounds[1] - bounds[0])
    for _ in range(20):
        width /= 2
        bound = min((bound - width, bound, bound + width), key=off)
    if matches(says, right, pulled(lambda w: w.clamp(-bound, bound))):
        return f"a convention: the cotangent is clipped at {bound:.3g}"
    return ""


def _stale(session: Session, o: int, s: int, pairs: Pairs, weights: list[Tensor]) -> str:
    """A derivative taken at inputs nearer to zero, found by the secant method in their share."""
    says, right = [g for g, _ in pairs], [r for _, r in pairs]
    if says[0].numel() > _FEW:
        return ""

    def gradients(share: float) -> list[Tensor] | None:
        try:
            jacobian = _jacobian(session, o, s, share)
        except (ArithmeticError, LayerError):
            return None
        if jacobian is None:
            return None
        return [(jacobian @ w).reshape(g.shape) for w, g in zip(weights, says, strict=True)]

    share, here = 0.0, right
    ahead = 1e-2
    for _ in range(_STALE):
        there = gradients(ahead)
        if there is None:
            return ""
        if matches(says, right, there):
            return f"a stale linearisation: the derivative at inputs smaller by {ahead:.3g}"
        rise = (there[0] - here[0]) / (ahead - share)
        size = float(rise.square().sum())
        if size == 0:
            return ""
        share, here, ahead = ahead, there, ahead + float(((says[0] - there[0]) * rise).sum()) / size
        if not abs(ahead) <= 1.5 or ahead == share:
            return ""
    return ""


def _along(session: Session, s: int) -> list[Measured]:
    """Measurements that moved this slot alone."""
    return [m for (group, _), m in session.measured.items() if group == (s,)]


def _straight_through(session: Session, o: int, s: int) -> str:
    """True if the output does not change nearby although it has a gradient."""
    found = _along(session, s)
    for measured in found:
        for column, (k, output) in enumerate(columns_of(session)):
            if output != o:
                continue
            says = abs(claimed(session, measured, k, o))
            if abs(float(measured.slope.value[column])) > _FLAT * says:
                return ""
    if not found:
        return ""
    return "a convention: straight-through, a gradient of an output that does not change nearby"


def _factor_along(session: Session, o: int, s: int) -> str:
    """The same factor along every direction."""
    factors, uncertain = [], 0.0
    along = _along(session, s)
    if not along:
        return ""
    step = session.size(s) * widened(session.direction(s, 3))
    try:
        further = quick(session, {s: step}, _STEP)
    except ArithmeticError:
        return ""
    for column, (k, output) in enumerate(columns_of(session)):
        if output == o and further[column] != 0:
            says = float((session.gradients[k][o][s] * real(step)).sum())
            factors.append(says / float(further[column]))
    for measured in along:
        for column, (k, output) in enumerate(columns_of(session)):
            sees = float(measured.slope.value[column])
            if output != o:
                continue
            if sees == 0:
                return ""
            factors.append(claimed(session, measured, k, o) / sees)
            noise = session.gradient_noise(k, o, s) * session.size(s) * measured.shares[s]
            uncertain = max(uncertain, (float(measured.slope.error[column]) + noise) / abs(sees))
    if not factors or uncertain > 1e-2:
        return ""
    middle = sum(factors) / len(factors)
    spread = max(abs(factor - middle) for factor in factors)
    if spread <= max(1e-6, EXPLAINED * abs(middle - 1)) or spread <= 4 * uncertain:
        return named_factor(session, o, middle, max(session.relative_floor(o, s), uncertain))
    return ""


def _right_when_small(session: Session, o: int, s: int) -> str:
    """A gradient that is right for small cotangents alone was clipped or normalised."""
    small = 2.0**-20
    for measured in _along(session, s):
        for column, (k, output) in enumerate(columns_of(session)):
            if output != o:
                continue
            pulled = session.tape.pullback(session.only(o, small * session.probes[k][o]))
            says = float((real(pulled[s]) * real(measured.steps[s])).sum()) / small
            sees = float(measured.slope.value[column])
            wrong = abs(claimed(session, measured, k, o) - sees)
            if abs(says - sees) > EXPLAINED * wrong:
                return ""
    return (
        "a convention: the gradient is clipped, and right for small cotangents alone"
        if _along(session, s)
        else ""
    )
