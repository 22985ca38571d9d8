"""Check: the backward pass gives the same gradients in equal calls, and changes nothing that others may
use.
"""

from __future__ import annotations

from ..evidence import Evidence
from ..real import real
from ..session import NotExercisedError, Session

_ROUNDINGS = 64.0


def repeatable(session: Session) -> list[Evidence]:
    """Two calls with equal values have equal gradients, up to the order of sums.

    Raises:
        NotExercisedError: A second call gave other values, or failed.
    """
    if session.again is None or session.repeat > 0:
        raise NotExercisedError("a second call gives other values")
    found = []
    for o, output in enumerate(session.outputs):
        w = session.probes[0][o]
        natural = float((real(w) * real(session.tape.values[o])).norm())
        for s, gradient in enumerate(session.again.pullback(session.only(o, w))):
            own = session.gradients[0][o][s]
            error = float((real(gradient) - own).nan_to_num().norm())
            scale = float(own.nan_to_num().norm())
            # Parallel sums may end in another order: a few roundings of the terms.
            rounding = _ROUNDINGS * session.eps * (scale + natural / session.size(s))
            floor = session.relative_floor(o, s) * scale + rounding + session.underflow(o, s)
            fault = (
                f"the backward pass is nondeterministic: in two equal calls the gradients differ by "
                f"{error / (scale or 1.0):.1e}"
            )
            found.append(
                Evidence(
                    "the same call again", output, session.slots[s].name,
                    error=error, scale=scale, floor=floor, reference=False,
                    fault=fault if error > floor and not session.solver_is_known else "",
                )
            )  # fmt: skip
    return found


def side_effects(session: Session) -> list[Evidence]:
    """Evidence on the writes that backward passes were seen to make, for every output and slot."""
    return [
        Evidence(
            "side effects", output, slot.name, 0.0, 0.0, 0.0, reference=False,
            fault=f"the backward pass writes into {what}, which other derivatives share",
        )
        for what in sorted(session.subject.observed)
        for output in session.outputs
        for slot in session.slots
    ]  # fmt: skip
