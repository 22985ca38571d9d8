"""Check: the complex step, a derivative without cancellation, for layers that take complex inputs.

For an analytic function `Im f(x + i h v) / h = ⟨∇f, v⟩ + O(h²)` for every `h`, however small (Squire &
Trapp 1998, equation 2.3; Martins, Sturdza & Alonso 2003). It needs the Cauchy–Riemann equations,
which absolute values, conjugates and real parts violate. So it is accepted if two steps agree and finite
differences are consistent with it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..evidence import Evidence
from ..real import real
from ..session import NotExercisedError, Session
from ..subject import LayerError
from .finite_differences import PROJECTED
from .measuring import TRUST, columns_of, doubt_of, measured, projected

NAME = "complex step"
_STEPS = (1e-8, 1e-30)
"""The square of the larger one is below rounding."""


def complex_step(session: Session) -> list[Evidence]:
    """One piece of evidence for each output, input, cotangent and direction.

    Raises:
        NotExercisedError: The layer takes no complex inputs, is not analytic, or has a known equation
            (then the implicit reference is as tight).
    """
    if session.residual is not None:
        raise NotExercisedError("the equation is known, and its reference is as tight")
    if any(value.is_complex() for value in session.tape.values):
        raise NotExercisedError("complex outputs have no complex step")
    found, reason = [], "no input requires gradients"
    for s, slot in enumerate(session.slots):
        if slot.position is None:
            reason = "parameters and captured tensors stay real"
            continue
        if slot.value.is_complex() or slot.rebuild is not None:
            reason = "a complex or sparse input has no complex step"
            continue
        if session.precision(0, s) != torch.float64:
            reason = "it needs float64"
            continue
        for kind in range(session.directions):
            try:
                found += _along(session, s, kind, doubt_of(session, s))
            except NotExercisedError as error:
                reason = str(error)
    if not found:
        raise NotExercisedError(reason)
    return found


def _along(session: Session, s: int, kind: int, doubt: float) -> list[Evidence]:
    direction = session.direction(s, kind)
    size = session.size(s)
    large, small = (_derivatives(session, s, direction, h * size) for h in _STEPS)
    try:
        slopes = measured(session, (s,), kind).slope
    except ArithmeticError as error:
        raise NotExercisedError(
            f"finite differences cannot be measured beside it: {error}"
        ) from error
    found = []
    for column, (k, o) in enumerate(columns_of(session)):
        gradient = session.gradients[k][o][s]
        scale = max(session.weighted(s, gradient), abs(large[column]))
        floor = session.relative_floor(o, s) * scale + session.gradient_noise(k, o, s)
        if abs(large[column] - small[column]) > floor:
            raise NotExercisedError("two complex steps disagree: the layer is not analytic")
        distance = abs(large[column] - float(slopes.value[column]) / size)
        if distance > TRUST * float(slopes.error[column]) / size + floor:
            raise NotExercisedError(
                "the Cauchy-Riemann equations do not hold: complex steps and finite "
                "differences disagree"
            )
        found.append(
            Evidence(
                NAME, session.outputs[o], session.slots[s].name,
                error=abs(float((gradient * real(direction)).sum()) - large[column]),
                scale=scale,
                floor=floor + session.underflow(o, s),
                slack=PROJECTED * session.known_slack(o, s),
                lag=session.lag,
                doubt=doubt * scale,
                reference=session.tighten is None,
            )
        )  # fmt: skip
    return found


def _derivatives(session: Session, s: int, direction: Tensor, h: float) -> np.ndarray:
    """`Im ⟨cotangent, output⟩ / h` of every column."""
    try:
        stepped = torch.complex(session.slots[s].value, h * direction)
        outputs = session.subject.complex_values(s, stepped)
    except (LayerError, RuntimeError) as error:
        raise NotExercisedError(f"the layer takes no complex inputs: {error}") from error
    if not all(output.is_complex() for output in outputs):
        raise NotExercisedError("the layer gives real values for complex inputs")
    return projected(session, [output.imag for output in outputs]) / h
