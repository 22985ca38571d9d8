"""Check: the weight-tied unrolled network of a fixed-point layer, from a cold start, at a fixed depth.

If the map contracts, the network's gradient converges to the layer's. Autograd records every step, so the
gradient is independent of the implicit function theorem. The depth is chosen by the spectral radius at the
root, so that the truncation error is below rounding; the network's own distance from the root is allowed for.
"""

from __future__ import annotations

import math

from ...implicit import ImplicitLayer
from ..evidence import Evidence
from ..polish import relative_distance
from ..session import LAG_PER_STEP, NotExercisedError, Session
from ..subject import LayerError
from ..unrolling import rate_of, rate_text, unrolled

_TO_ROUNDING = 1e-14
_DEEPEST = 400


def unrolled_network(session: Session) -> list[Evidence]:
    """One piece of evidence for each output and slot, with the rate of convergence in its detail.

    Raises:
        NotExercisedError: The layer is not a fixed-point layer of this package, or its map does not contract.
    """
    layer = session.subject.layer
    if not isinstance(layer, ImplicitLayer) or layer.settings.form != "fixed_point":
        raise NotExercisedError("the layer is no iteration that can be unrolled")
    star = session.roots[1]
    radius = star.inverse.rate
    if radius is None or not radius < 1:
        raise NotExercisedError("plain iteration does not converge to the solution, or slowly")
    depth = math.ceil(math.log(_TO_ROUNDING) / math.log(max(radius, 1e-3)))
    if depth > _DEEPEST:
        raise NotExercisedError(f"the spectral radius {radius:.4f} needs {depth} layers")
    depths = sorted({max(1, depth * part // 8) for part in range(2, 9)})
    try:
        tapes = [session.subject.like(unrolled(layer, k))[1] for k in depths]
    except LayerError as error:
        raise NotExercisedError(f"the unrolled network cannot be called: {error}") from error
    distances = [relative_distance(star.equation.flat(tape.values), star.z) for tape in tapes]
    eps = session.rounding
    rate = rate_text(rate_of(depths, distances, eps))
    detail = f"{depth} layers, factor per layer {rate}, spectral radius {radius:.3f}"
    own = LAG_PER_STEP * depth * max(distances[-1], eps)
    found = []
    for o, output in enumerate(session.outputs):
        gradients = tapes[-1].pullback(session.only(o, session.probes[0][o]))
        for s, slot in enumerate(session.slots):
            says, network = session.gradients[0][o][s].double(), gradients[s].double()
            scale = float(network.norm())
            found.append(
                Evidence(
                    "unrolled network", output, slot.name,
                    error=float((says - network).norm()),
                    scale=scale,
                    floor=(session.conditioned_floor(o, s) + own) * scale + session.underflow(o, s),
                    slack=session.known_slack(o, s),
                    lag=session.lag,
                    reference=False,
                    worst=session.component(s, says, network),
                    detail=detail,
                )
            )  # fmt: skip
    return found
