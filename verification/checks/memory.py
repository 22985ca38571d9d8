"""Check: growth of the memory for the backward pass with the number of iterations.

An implicit derivative needs the solution alone; a network that autograd records needs every iterate. Either
is correct, so the result is a note.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...implicit import ImplicitLayer
from ...solvers import Stopping
from ..evidence import Evidence
from ..saved import saved_bytes
from ..session import NotExercisedError, Session
from ..subject import LayerError, Subject

_FEW, _MANY = 4, 16


def memory_of_iterations(session: Session) -> list[Evidence]:
    """Note the bytes saved after few and after many iterations; there is no evidence.

    Raises:
        NotExercisedError: The number of iterations cannot be changed.
    """
    (few, short), (many, long) = _pair(session)
    before, after = _saved(short), _saved(long)
    grows = "grow" if after > before else "do not grow"
    session.notes.append(
        f"{before:,} bytes are saved for the backward pass {few}, {after:,} {many}: "
        f"they {grows} with the iterations"
    )
    return []


def _saved(subject: Subject) -> int:
    try:
        return saved_bytes(subject.tape)
    except LayerError as error:
        raise NotExercisedError(f"the layer cannot be called so: {error}") from error


def _pair(session: Session) -> tuple[tuple[str, Subject], tuple[str, Subject]]:
    layer = session.subject.layer
    if isinstance(layer, ImplicitLayer):
        return (
            (f"of {_FEW} iterations", session.subject.like(_limited(layer, _FEW))[0]),
            (f"of {_MANY}", session.subject.like(_limited(layer, _MANY))[0]),
        )
    if session.tighten is not None:
        tightened = session.tightened.subjects
        return ("as it is", session.subject), ("at the tightest tolerance", tightened[-1])
    raise NotExercisedError("the number of iterations cannot be changed: give tighten=")


def _limited(layer: ImplicitLayer, steps: int) -> Callable[..., Any]:
    """The layer limited to this number of iterations."""
    limited = copy.copy(layer)
    stopping = replace(layer.settings.stopping or Stopping(), max_steps=steps)
    limited.settings = replace(layer.settings, stopping=stopping, on_failure="accept")
    return limited
