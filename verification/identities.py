"""Checks without differences: relations that the derivatives of any function satisfy exactly."""

from __future__ import annotations

import torch

from .evidence import Evidence
from .finite_differences import noise_of_layer
from .setup import NotExercisedError, Setup
from .subject import NoForwardModeError

_LAG = 1e3
_SMALL = 2.0**-20
"""A power of two, so that scaling by it rounds nothing."""


def linearity(setup: Setup) -> list[Evidence]:
    """The gradient is linear in the cotangent: `g(ε (w + 3 w′)) = ε (g(w) + 3 g(w′))`.

    An adjoint solve with an absolute tolerance, a fixed regularisation, or a cut-off breaks it.
    """
    found = []
    for o, output in enumerate(setup.outputs):
        first, second = setup.probes[0][o], setup.probes[min(1, setup.cotangents - 1)][o]
        mixed = _SMALL * (first + 3 * second)
        gradients = setup.tape.pullback(setup.only(o, mixed))
        for s, slot in enumerate(setup.slots):
            g = setup.gradients[0][o][s].double()
            h = setup.gradients[min(1, setup.cotangents - 1)][o][s].double()
            expected, says = g + 3 * h, gradients[s].detach().double() / _SMALL
            scale = float(g.norm() + 3 * h.norm())
            found.append(
                Evidence(
                    "linearity in the cotangent", output, slot.name,
                    error=float((says - expected).norm()),
                    scale=scale,
                    floor=setup.relative_floor(o, s) * scale + smallest(setup, o, s),
                    slack=slack_of(setup, o, s),
                    reference=False,
                    worst=setup.component(s, says, expected),
                )
            )  # fmt: skip
    return found


def forward_mode(setup: Setup) -> list[Evidence]:
    """Forward mode agrees with reverse mode: `⟨w, J v⟩ = ⟨Jᵀ w, v⟩`.

    Raises:
        NotExercisedError: The layer has no forward mode.
    """
    found, reason = [], "no input requires gradients"
    noise = noise_of_layer(setup) if setup.residual is None else 0.0
    for s, slot in enumerate(setup.slots):
        if slot.position is None:
            continue
        direction = setup.direction(s, 0)
        tangents = [
            direction if i == s else torch.zeros_like(other.value)
            for i, other in enumerate(setup.slots)
        ]
        try:
            outputs = setup.subject.pushforward(tangents)
        except NoForwardModeError as error:
            reason = str(error)
            continue
        for o, output in enumerate(setup.outputs):
            for k in range(setup.cotangents):
                gradient = setup.gradients[k][o][s].double()
                reverse = float((gradient * direction.double()).sum())
                forward = float((setup.probes[k][o].double() * outputs[o].double()).sum())
                scale = max(float(gradient.norm()), abs(forward))
                found.append(
                    Evidence(
                        "forward against reverse mode", output, slot.name,
                        error=abs(forward - reverse),
                        scale=scale,
                        # Both modes may have solved a linear equation to its tolerance.
                        floor=2 * setup.relative_floor(o, s) * scale + smallest(setup, o, s),
                        slack=slack_of(setup, o, s),
                        # Forward mode is another call, which may end elsewhere.
                        doubt=_LAG * noise * scale,
                        reference=False,
                    )
                )  # fmt: skip
    if not found:
        raise NotExercisedError(f"the layer has no forward mode: {reason}")
    return found


def slack_of(setup: Setup, o: int, s: int) -> float:
    """What the solver explains; nothing where the equation is not known."""
    try:
        return setup.slack(0, o, s)
    except NotExercisedError:
        return 0.0


def smallest(setup: Setup, o: int, s: int) -> float:
    """Gradients this small are zero in the layer's dtype."""
    tiny = torch.finfo(setup.precision(o, s)).tiny
    return tiny / _SMALL * max(setup.slots[s].value.numel(), 1) ** 0.5
