"""Check: directional finite differences, of the polished root where the equation is known.

Differences of a layer's own output see its solver: jumps in the number of iterations, and the slope of
the truncated iteration where that number stays. Differences of the root see neither. They also
examine the implicit reference itself, whose only source is autograd through the equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .differences import Slope, slope
from .evidence import Evidence
from .polish import PolishError, Root
from .setup import NotExercisedError, Setup
from .subject import LayerError

NAME = "finite differences"
_TRUST = 4.0
"""Differences are believed up to this multiple of the error they state."""
_UNFINISHED = 64.0
"""Noise above this multiple of rounding is an iteration that stops at a tolerance."""
_LAG = 1e3
"""By how much more than its values an unfinished iteration may have a wrong gradient."""
_KINK = 1e-6


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
    noise = 0.0 if root is not None else noise_of_layer(setup)
    found = []
    for s in range(len(setup.slots)):
        for kind in range(setup.directions):
            found += _along(setup, s, kind, root, noise)
    return found


def noise_of_layer(setup: Setup) -> float:
    """The relative noise of the layer's values, the largest along any direction."""
    noise = setup.repeat
    for s in range(len(setup.slots)):
        for kind in range(setup.directions):
            try:
                measured = _measured(setup, s, kind, None)
            except ArithmeticError:
                continue
            sizes = np.maximum(measured.size, 1e-300)
            noise = max(noise, float((measured.slope.noise / sizes).max()))
    return noise


def reference_holds(setup: Setup) -> str:
    """Why the implicit reference is not to be believed, or nothing: it is itself differenced.

    Raises:
        NotExercisedError: There is no implicit reference.
    """
    _, root = setup.roots
    for s, slot in enumerate(setup.slots):
        direction = setup.direction(s, 0)
        try:
            measured = _measured(setup, s, 0, root)
        except ArithmeticError:
            continue
        for column, (k, o) in enumerate(_columns(setup)):
            star = setup.implicit(k, o)[1][s]
            says, sees = _inner(star, direction), measured.slope.value[column]
            scale = max(float(star.norm()), abs(sees))
            allowed = _TRUST * measured.slope.error[column] + 1e-7 * scale
            if abs(says - sees) > allowed and not measured.slope.jump[column] > _KINK * scale:
                return (
                    f"the derivative that autograd gives of the equation in {slot.name} is not its "
                    f"derivative: {says:.6g} along a direction, finite differences of the root "
                    f"give {sees:.6g}"
                )
    return ""


def measure(setup: Setup, s: int, direction: Tensor, root: Root | None) -> Measured:
    """Derivatives of all `⟨cotangent, output⟩` along a direction of one slot.

    Raises:
        ArithmeticError: They cannot be measured.
    """
    sample = _sampler(setup, s, direction, root)
    size = setup.size(s)
    columns = _columns(setup)
    relative = np.array([setup.relative_floor(o, s) / _TRUST for _, o in columns])
    sizes = np.array([float(setup.gradients[k][o][s].double().norm()) for k, o in columns])
    terms = np.array(
        [
            float((setup.probes[k][o].double() * setup.tape.values[o].double()).abs().sum())
            for k, o in columns
        ]
    )
    return Measured(slope(sample, size, relative, sizes), terms)


def _measured(setup: Setup, s: int, kind: int, root: Root | None) -> Measured:
    key = (s, kind)
    if key not in setup.measured:
        setup.measured[key] = measure(setup, s, setup.direction(s, kind), root)
    return setup.measured[key]


def _along(setup: Setup, s: int, kind: int, root: Root | None, noise: float) -> list[Evidence]:
    direction = setup.direction(s, kind)
    name = NAME if root is None else f"{NAME} of the root"
    columns = _columns(setup)
    try:
        measured = _measured(setup, s, kind, root)
    except ArithmeticError as error:
        return [
            Evidence(
                name, setup.outputs[o], setup.slots[s].name, 0.0, 0.0, 0.0, unreliable=str(error)
            )
            for _, o in columns
        ]
    return [
        _evidence(setup, s, k, o, direction, measured, column, name, root, noise)
        for column, (k, o) in enumerate(columns)
    ]


def _evidence(
    setup: Setup,
    s: int,
    k: int,
    o: int,
    direction: Tensor,
    measured: Measured,
    column: int,
    name: str,
    root: Root | None,
    noise: float,
) -> Evidence:
    gradient = setup.gradients[k][o][s].double()
    sees = float(measured.slope.value[column])
    uncertain = _TRUST * float(measured.slope.error[column])
    error = abs(_inner(gradient, direction) - sees)
    scale = max(float(gradient.norm()), abs(sees))
    floor, slack, doubt = setup.relative_floor(o, s) * scale + uncertain, 0.0, 0.0
    if root is None:
        eps = torch.finfo(setup.precision(o, s)).eps
        if noise > _UNFINISHED * eps:
            doubt = _LAG * noise * scale
    else:
        slack = setup.slack(k, o, s)
        floor += setup.conditioned_floor(o, s) * scale
    unreliable = ""
    if measured.slope.jump[column] > _KINK * scale:
        unreliable = (
            f"the slopes on both sides differ by {measured.slope.jump[column] / scale:.1e}: "
            "the layer has a kink here"
        )
    elif bool(measured.slope.constant[column]) and error <= floor:
        scale = 0.0  # Nothing moved, and the layer says so too.
    return Evidence(
        name, setup.outputs[o], setup.slots[s].name, error, scale, floor, slack, doubt,
        unreliable=unreliable,
    )  # fmt: skip


def polished_root(setup: Setup) -> Root | None:
    """The polished root, or `None` where the equation is not known or not solved."""
    try:
        return setup.roots[1]
    except NotExercisedError:
        return None


def _columns(setup: Setup) -> list[tuple[int, int]]:
    return [(k, o) for o in range(len(setup.outputs)) for k in range(setup.cotangents)]


def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


def _sampler(
    setup: Setup, s: int, direction: Tensor, root: Root | None
) -> Callable[[float], np.ndarray]:
    columns = _columns(setup)
    probes = [setup.probes[k][o].double().reshape(-1) for k, o in columns]

    def projected(outputs: tuple[Tensor, ...]) -> np.ndarray:
        flat = [output.double().reshape(-1) for output in outputs]
        return np.array([float(w @ flat[o]) for w, (_, o) in zip(probes, columns, strict=True)])

    if root is not None:
        base, along = root.equation.base, direction.double()

        def of_root(t: float) -> np.ndarray:
            if t == 0:
                return projected(root.equation.parts(root.z))
            values = [v + t * along if i == s else v for i, v in enumerate(base)]
            try:
                return projected(root.equation.parts(root.moved(values)))
            except LayerError as error:
                raise PolishError(str(error)) from error

        return of_root

    own = [slot.value for slot in setup.slots]

    def of_layer(t: float) -> np.ndarray:
        values = [v + t * direction if i == s else v for i, v in enumerate(own)]
        try:
            return projected(setup.subject.values(values))
        except LayerError as error:
            raise ArithmeticError(str(error)) from error

    return of_layer
