"""Check: directional finite differences, of the polished root if the equation is known.

Differences of a layer's own output see its solver: jumps in the number of iterations, and between them the
slope of the truncated iteration. Differences of the root see neither. They also examine the implicit
reference itself, which comes from autograd through the equation alone. Without an equation, but with a way
to tighten the tolerance, differences of ever tighter layers are taken until they converge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..differences import Slope, slope
from ..evidence import Evidence
from ..polish import PolishError, Root
from ..session import NotExercisedError, Session
from ..subject import LayerError, Subject, Tensors

NAME = "finite differences"
TRUST = 4.0
"""The true error of differences may exceed their estimate by up to this factor."""
_UNFINISHED = 64.0
"""Noise above this multiple of rounding indicates an iteration that stops at a tolerance."""
_LAG = 1e3
"""The relative error of an unfinished iteration's gradient is at most this multiple of that of its values."""
_KINK = 1e-6
PROJECTED = 3.0
"""The product of an error with a Gaussian direction is at most this multiple of the error's norm."""
_SHRINKS = 0.5
"""Changes between tolerances must shrink to below this fraction, or the values do not converge."""

Moved = Callable[[int, Tensor, float], Tensors]
"""The outputs with one slot moved by a multiple of a direction."""


@dataclass(frozen=True)
class Measured:
    """Derivatives along one direction: a column for each output and cotangent.

    Attributes:
        slope: The derivatives.
        size: Sum of the sizes of the terms in each column, the scale of rounding.
    """

    slope: Slope
    size: np.ndarray


def finite_differences(session: Session) -> list[Evidence]:
    """One piece of evidence for each output, slot, cotangent and direction.

    Raises:
        NotExercisedError: The equation is known, and its root was not found.
    """
    root = polished_root(session)
    if root is None and session.residual is not None:
        raise NotExercisedError(
            "differences of the layer are not those of the root, which was not found"
        )
    noise = 0.0 if session.solver_is_known else noise_of_layer(session)
    return [
        piece
        for s in range(len(session.slots))
        for kind in range(session.directions)
        for piece in _along(session, s, kind, noise)
    ]


def noise_of_layer(session: Session) -> float:
    """The relative noise of the layer's values, the largest along any direction."""
    noise = session.repeat
    for s in range(len(session.slots)):
        for kind in range(session.directions):
            try:
                found = measured(session, s, kind)
            except ArithmeticError:
                continue
            sizes = np.maximum(found.size, 1e-300)
            noise = max(noise, float((found.slope.noise / sizes).max()))
    return noise


def doubt_of_another_call(session: Session) -> float:
    """Relative difference of gradients between two calls, which may end at different iterates."""
    return 0.0 if session.solver_is_known else _LAG * noise_of_layer(session)


def reference_holds(session: Session) -> str:
    """Reason to distrust the implicit reference, by differences of the root; empty if there is none.

    Raises:
        NotExercisedError: There is no implicit reference.
    """
    for s, slot in enumerate(session.slots):
        direction = session.direction(s, 0)
        try:
            found = measured(session, s, 0).slope
        except ArithmeticError:
            continue
        for column, (k, o) in enumerate(columns_of(session)):
            star = session.implicit(k, o)[1][s]
            says, sees = _inner(star, direction), found.value[column]
            scale = max(float(star.norm()), abs(sees))
            allowed = TRUST * found.error[column] + 1e-7 * scale
            if abs(says - sees) > allowed and not found.jump[column] > _KINK * scale:
                return (
                    f"the derivative that autograd gives of the equation in {slot.name} is not its "
                    f"derivative: {says:.6g} along a direction, finite differences of the root "
                    f"give {sees:.6g}"
                )
    return ""


def measured(session: Session, s: int, kind: int) -> Measured:
    """Derivatives of all `⟨cotangent, output⟩` along a direction of one slot, kept for other checks.

    Raises:
        ArithmeticError: No spacing gives values.
    """
    key = (s, kind)
    if key not in session.measured:
        session.measured[key] = measure(session, s, session.direction(s, kind))
    found: Measured = session.measured[key]
    return found


def measure(session: Session, s: int, direction: Tensor) -> Measured:
    """Derivatives along any direction: of the root, of the tightened layer, or of the layer.

    Raises:
        ArithmeticError: No spacing gives values.
    """
    root = polished_root(session)
    if root is not None:
        return _of(session, s, direction, moved_root(root))
    if session.tighten is not None:
        return _settled(session, s, direction)
    return _of(session, s, direction, moved_layer(session.subject))


def _settled(session: Session, s: int, direction: Tensor) -> Measured:
    """Derivatives of ever tighter layers, extrapolated as a geometric series of changes.

    If changes shrink by `ρ`, the remainder after the last one is `ρ/(1 − ρ)` times it (Aitken 1926). The
    remainder is added to the value, and to the error.
    """
    found: Measured | None = None
    change = before = np.inf
    for subject in session.tightened.subjects:
        try:
            now = _of(session, s, direction, moved_layer(subject))
        except ArithmeticError:  # A tolerance that the layer cannot reach.
            break
        if found is not None:
            step = now.slope.value - found.slope.value
            before, change = change, np.abs(step)
            ratio = np.clip(change / np.maximum(before, 1e-300), 0.0, 0.99)
            left = np.where(change == 0, 0.0, step * ratio / (1 - ratio))
            # The first change has no predecessor: the remainder may be as large as the change.
            left_at_most = np.where(np.isfinite(before), np.abs(left), change)
            restless = (ratio > _SHRINKS) & (change > TRUST * now.slope.error)
            error = now.slope.error + np.where(restless, change / (1 - ratio), left_at_most)
            value = now.slope.value + np.where(np.isfinite(before) & ~restless, left, 0.0)
            found = Measured(replace(now.slope, value=value, error=error), now.size)
            if (left_at_most <= now.slope.error).all():
                break
        else:
            found = Measured(
                replace(now.slope, error=np.full_like(now.slope.error, np.inf)), now.size
            )
    if found is None or not np.isfinite(found.slope.error).all():
        raise ArithmeticError("tighten= gave only one layer: two tolerances are needed")
    return found


def _of(session: Session, s: int, direction: Tensor, moved: Moved) -> Measured:
    columns = columns_of(session)

    def sample(t: float) -> np.ndarray:
        return projected(session, moved(s, direction, t))

    relative = np.array([session.relative_floor(o, s) / TRUST for _, o in columns])
    sizes = np.array([float(session.gradients[k][o][s].double().norm()) for k, o in columns])
    terms = np.array(
        [
            float((session.probes[k][o].double() * session.tape.values[o].double()).abs().sum())
            for k, o in columns
        ]
    )
    return Measured(slope(sample, session.size(s), relative, sizes), terms)


def projected(session: Session, outputs: Sequence[Tensor]) -> np.ndarray:
    """`⟨cotangent, output⟩` of every column."""
    flat = [output.double().reshape(-1) for output in outputs]
    columns = columns_of(session)
    return np.array(
        [float(session.probes[k][o].double().reshape(-1) @ flat[o]) for k, o in columns]
    )


def shifted(values: Sequence[Tensor], s: int, step: Tensor) -> list[Tensor]:
    """Values of all slots, with one of them moved."""
    return [value + step if i == s else value for i, value in enumerate(values)]


def moved_outputs(session: Session) -> Moved:
    """The most accurate known outputs: of the root, of the tightest layer, or of the layer."""
    root = polished_root(session)
    if root is not None:
        return moved_root(root)
    tightest = session.subject if session.tighten is None else session.tightened.subjects[-1]
    return moved_layer(tightest)


def moved_root(root: Root) -> Moved:
    """The outputs at the root."""

    def outputs(s: int, direction: Tensor, t: float) -> Tensors:
        if t == 0:
            return root.equation.parts(root.z)
        values = shifted(root.equation.base, s, t * direction.double())
        try:
            return root.equation.parts(root.moved(values))
        except LayerError as error:
            raise PolishError(str(error)) from error

    return outputs


def moved_layer(subject: Subject) -> Moved:
    """The outputs of a layer itself."""

    def outputs(s: int, direction: Tensor, t: float) -> Tensors:
        values = shifted([slot.value for slot in subject.slots], s, t * direction)
        try:
            return subject.values(values)
        except LayerError as error:
            raise ArithmeticError(str(error)) from error

    return outputs


def _along(session: Session, s: int, kind: int, noise: float) -> list[Evidence]:
    columns = columns_of(session)
    try:
        slopes = measured(session, s, kind).slope
    except ArithmeticError as error:
        return [
            Evidence(
                _name(session), session.outputs[o], session.slots[s].name, 0.0, 0.0, 0.0,
                unreliable=str(error),
            )
            for _, o in columns
        ]  # fmt: skip
    direction = session.direction(s, kind)
    return [
        _evidence(session, s, direction, k, o, slopes, column, noise)
        for column, (k, o) in enumerate(columns)
    ]


def _name(session: Session) -> str:
    if session.residual is not None:
        return f"{NAME} of the root"
    return NAME if session.tighten is None else f"{NAME} of the tightened layer"


def _evidence(
    session: Session,
    s: int,
    direction: Tensor,
    k: int,
    o: int,
    slopes: Slope,
    column: int,
    noise: float,
) -> Evidence:
    gradient = session.gradients[k][o][s].double()
    sees = float(slopes.value[column])
    uncertain = TRUST * float(slopes.error[column])
    error = abs(_inner(gradient, direction) - sees)
    scale = max(float(gradient.norm()), abs(sees))
    floor, slack, doubt = session.relative_floor(o, s) * scale + uncertain, 0.0, 0.0
    if session.solver_is_known:
        slack = PROJECTED * session.slack(k, o, s)
    elif noise > _UNFINISHED * torch.finfo(session.precision(o, s)).eps:
        doubt = _LAG * noise * scale
    if session.residual is not None:
        floor += session.conditioned_floor(o, s) * scale
    unreliable = ""
    if slopes.jump[column] > _KINK * scale:
        unreliable = (
            f"the slopes on both sides differ by {slopes.jump[column] / scale:.1e}: "
            "the layer has a kink here"
        )
    elif bool(slopes.constant[column]) and error <= floor:
        scale = 0.0  # Neither the outputs nor the gradient show a dependence.
    return Evidence(
        check=_name(session),
        output=session.outputs[o],
        input=session.slots[s].name,
        error=error,
        scale=scale,
        floor=floor,
        slack=slack,
        lag=session.lag,
        doubt=doubt,
        unreliable=unreliable,
    )


def polished_root(session: Session) -> Root | None:
    """The polished root, or `None` if the equation is unknown or unsolved."""
    try:
        return session.roots[1]
    except NotExercisedError:
        return None


def columns_of(session: Session) -> list[tuple[int, int]]:
    """The cotangents and outputs, `(k, o)`, of the measured columns."""
    return [(k, o) for o in range(len(session.outputs)) for k in range(session.cotangents)]


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
