"""Check: directional finite differences, of the polished root where the equation is known.

Differences of a layer's own output see its solver: jumps in the number of iterations, and the slope of
the truncated iteration where that number stays. Differences of the root see neither. They also
examine the implicit reference itself, whose only source is autograd through the equation. Without an
equation, but with a knob that tightens the tolerance, differences of ever tighter layers are taken until
they settle.
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
from ..setup import NotExercisedError, Setup
from ..subject import LayerError, Subject, Tensors

NAME = "finite differences"
TRUST = 4.0
"""Differences are believed up to this multiple of the error they state."""
_UNFINISHED = 64.0
"""Noise above this multiple of rounding is an iteration that stops at a tolerance."""
_LAG = 1e3
"""By how much more than its values an unfinished iteration may have a wrong gradient."""
_KINK = 1e-6
PROJECTED = 3.0
"""By how much the product of an error with a Gaussian direction may exceed the error's norm."""
_SHRINKS = 0.5
"""Changes from a tolerance to the next that shrink less than this settle on nothing."""

Moved = Callable[[int, Tensor, float], Tensors]
"""The outputs with one slot moved by a multiple of a direction."""


@dataclass(frozen=True)
class Measured:
    """Derivatives along one direction: a column for each output and cotangent.

    Attributes:
        slope: The derivatives.
        size: Sizes of the terms that were added for each column, the scale of rounding.
    """

    slope: Slope
    size: np.ndarray


def finite_differences(setup: Setup) -> list[Evidence]:
    """One piece of evidence for each output, slot, cotangent and direction.

    Raises:
        NotExercisedError: The equation is known, and its root was not found.
    """
    root = polished_root(setup)
    if root is None and setup.residual is not None:
        raise NotExercisedError(
            "differences of the layer are not those of the root, which was not found"
        )
    noise = 0.0 if setup.solver_is_known else noise_of_layer(setup)
    return [
        piece
        for s in range(len(setup.slots))
        for kind in range(setup.directions)
        for piece in _along(setup, s, kind, noise)
    ]


def noise_of_layer(setup: Setup) -> float:
    """The relative noise of the layer's values, the largest along any direction."""
    noise = setup.repeat
    for s in range(len(setup.slots)):
        for kind in range(setup.directions):
            try:
                found = measured(setup, s, kind)
            except ArithmeticError:
                continue
            sizes = np.maximum(found.size, 1e-300)
            noise = max(noise, float((found.slope.noise / sizes).max()))
    return noise


def doubt_of_another_call(setup: Setup) -> float:
    """The part of a gradient by which another call may differ, since it may end at another iterate."""
    return 0.0 if setup.solver_is_known else _LAG * noise_of_layer(setup)


def reference_holds(setup: Setup) -> str:
    """Why the implicit reference is not to be believed, or nothing: it is itself differenced.

    Raises:
        NotExercisedError: There is no implicit reference.
    """
    for s, slot in enumerate(setup.slots):
        direction = setup.direction(s, 0)
        try:
            found = measured(setup, s, 0).slope
        except ArithmeticError:
            continue
        for column, (k, o) in enumerate(columns_of(setup)):
            star = setup.implicit(k, o)[1][s]
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


def measured(setup: Setup, s: int, kind: int) -> Measured:
    """Derivatives of all `⟨cotangent, output⟩` along a direction of one slot, kept for other checks.

    Raises:
        ArithmeticError: They cannot be measured.
    """
    key = (s, kind)
    if key not in setup.measured:
        setup.measured[key] = measure(setup, s, setup.direction(s, kind))
    found: Measured = setup.measured[key]
    return found


def measure(setup: Setup, s: int, direction: Tensor) -> Measured:
    """The same along any direction: of the root, of the tightened layer, or of the layer.

    Raises:
        ArithmeticError: They cannot be measured.
    """
    root = polished_root(setup)
    if root is not None:
        return _of(setup, s, direction, moved_root(root))
    if setup.tighten is not None:
        return _settled(setup, s, direction)
    return _of(setup, s, direction, moved_layer(setup.subject))


def _settled(setup: Setup, s: int, direction: Tensor) -> Measured:
    """Derivatives of ever tighter layers, extrapolated as a geometric series of changes.

    With changes that shrink by `ρ`, what is left after the last one is `ρ/(1 − ρ)` times it (Aitken
    1926); it is added to the value, and to the error.
    """
    found: Measured | None = None
    change = before = np.inf
    for subject in setup.tightened.subjects:
        try:
            now = _of(setup, s, direction, moved_layer(subject))
        except ArithmeticError:  # A tolerance that the layer cannot reach.
            break
        if found is not None:
            step = now.slope.value - found.slope.value
            before, change = change, np.abs(step)
            ratio = np.clip(change / np.maximum(before, 1e-300), 0.0, 0.99)
            left = np.where(change == 0, 0.0, step * ratio / (1 - ratio))
            # The first change has nothing to be compared with: all of it may be left.
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


def _of(setup: Setup, s: int, direction: Tensor, moved: Moved) -> Measured:
    columns = columns_of(setup)

    def sample(t: float) -> np.ndarray:
        return projected(setup, moved(s, direction, t))

    relative = np.array([setup.relative_floor(o, s) / TRUST for _, o in columns])
    sizes = np.array([float(setup.gradients[k][o][s].double().norm()) for k, o in columns])
    terms = np.array(
        [
            float((setup.probes[k][o].double() * setup.tape.values[o].double()).abs().sum())
            for k, o in columns
        ]
    )
    return Measured(slope(sample, setup.size(s), relative, sizes), terms)


def projected(setup: Setup, outputs: Sequence[Tensor]) -> np.ndarray:
    """`⟨cotangent, output⟩` of every column."""
    flat = [output.double().reshape(-1) for output in outputs]
    columns = columns_of(setup)
    return np.array([float(setup.probes[k][o].double().reshape(-1) @ flat[o]) for k, o in columns])


def shifted(values: Sequence[Tensor], s: int, step: Tensor) -> list[Tensor]:
    """Values of all slots, that of one of them moved."""
    return [value + step if i == s else value for i, value in enumerate(values)]


def moved_outputs(setup: Setup) -> Moved:
    """The outputs of the root, of the tightest layer, or of the layer, whichever is known best."""
    root = polished_root(setup)
    if root is not None:
        return moved_root(root)
    tightest = setup.subject if setup.tighten is None else setup.tightened.subjects[-1]
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


def _along(setup: Setup, s: int, kind: int, noise: float) -> list[Evidence]:
    columns = columns_of(setup)
    try:
        slopes = measured(setup, s, kind).slope
    except ArithmeticError as error:
        return [
            Evidence(
                _name(setup), setup.outputs[o], setup.slots[s].name, 0.0, 0.0, 0.0,
                unreliable=str(error),
            )
            for _, o in columns
        ]  # fmt: skip
    direction = setup.direction(s, kind)
    return [
        _evidence(setup, s, direction, k, o, slopes, column, noise)
        for column, (k, o) in enumerate(columns)
    ]


def _name(setup: Setup) -> str:
    if setup.residual is not None:
        return f"{NAME} of the root"
    return NAME if setup.tighten is None else f"{NAME} of the tightened layer"


def _evidence(
    setup: Setup,
    s: int,
    direction: Tensor,
    k: int,
    o: int,
    slopes: Slope,
    column: int,
    noise: float,
) -> Evidence:
    gradient = setup.gradients[k][o][s].double()
    sees = float(slopes.value[column])
    uncertain = TRUST * float(slopes.error[column])
    error = abs(_inner(gradient, direction) - sees)
    scale = max(float(gradient.norm()), abs(sees))
    floor, slack, doubt = setup.relative_floor(o, s) * scale + uncertain, 0.0, 0.0
    if setup.solver_is_known:
        slack = PROJECTED * setup.slack(k, o, s)
    elif noise > _UNFINISHED * torch.finfo(setup.precision(o, s)).eps:
        doubt = _LAG * noise * scale
    if setup.residual is not None:
        floor += setup.conditioned_floor(o, s) * scale
    unreliable = ""
    if slopes.jump[column] > _KINK * scale:
        unreliable = (
            f"the slopes on both sides differ by {slopes.jump[column] / scale:.1e}: "
            "the layer has a kink here"
        )
    elif bool(slopes.constant[column]) and error <= floor:
        scale = 0.0  # Nothing moved, and the layer says so too.
    return Evidence(
        check=_name(setup),
        output=setup.outputs[o],
        input=setup.slots[s].name,
        error=error,
        scale=scale,
        floor=floor,
        slack=slack,
        lag=setup.lag,
        doubt=doubt,
        unreliable=unreliable,
    )


def polished_root(setup: Setup) -> Root | None:
    """The polished root, or `None` where the equation is not known or not solved."""
    try:
        return setup.roots[1]
    except NotExercisedError:
        return None


def columns_of(setup: Setup) -> list[tuple[int, int]]:
    """The cotangents and outputs, `(k, o)`, of the columns of what is measured."""
    return [(k, o) for o in range(len(setup.outputs)) for k in range(setup.cotangents)]


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())
