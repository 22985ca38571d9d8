"""Check: the layer's gradients against the implicit function theorem, solved directly.

The reference is independent of the layer's solver, its adjoint solver and its derivative rule. It uses only
the equation's function and autograd through one evaluation of it, in float64, with dense matrices if they
fit. It is taken at the layer's own output and at the polished one, from the same call. The distance of the
two is the solver's part (slack).
"""

from __future__ import annotations

from ..evidence import Evidence
from ..session import Session

NAME = "implicit reference"


def implicit_reference(session: Session) -> list[Evidence]:
    """One piece of evidence for each output, slot and cotangent.

    Raises:
        NotExercisedError: The equation is unknown, or has no derivative here.
    """
    found = []
    for o, output in enumerate(session.outputs):
        for k in range(session.cotangents):
            _, star = session.implicit(k, o)
            for s, slot in enumerate(session.slots):
                gradient = session.gradients[k][o][s]
                scale = float(star[s].norm())
                found.append(
                    Evidence(
                        check=NAME,
                        output=output,
                        input=slot.name,
                        error=float((gradient - star[s]).norm()),
                        scale=scale,
                        floor=session.conditioned_floor(o, s) * scale + session.underflow(o, s),
                        slack=session.slack(k, o, s),
                        lag=session.lag,
                        worst=session.component(s, gradient, star[s]),
                    )
                )
    return found
