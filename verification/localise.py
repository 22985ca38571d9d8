"""Localisation of a wrong component by bisection, from directional derivatives alone.

A direction along which the layer and finite differences disagree is cut in half; the half with the
larger disagreement is cut again. One of `n` components is left after `log₂ n` rounds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .checks.finite_differences import NAME
from .checks.measuring import quick
from .evidence import Component, Evidence, combine
from .real import real, widened
from .session import Session
from .verdict import Verdict

_SPACING = 1e-4


def localised(
    session: Session, o: int, s: int, evidence: tuple[Evidence, ...]
) -> tuple[Evidence, ...]:
    """The same evidence, with the worst component added if only differences see an error."""
    verdict, deciding = combine(evidence)
    if verdict is not Verdict.WRONG or deciding is None or deciding.worst is not None:
        return evidence
    if not deciding.check.startswith(NAME):
        return evidence
    component = _bisect(session, o, s)
    return tuple(
        replace(piece, worst=component) if piece is deciding else piece for piece in evidence
    )


def _bisect(session: Session, o: int, s: int) -> Component | None:
    # Signs form a direction without small entries. The column is that of the first cotangent.
    direction = session.size(s) * widened(session.direction(s, 2))
    column, along = o * session.cotangents, real(direction).reshape(-1)
    gradient = session.gradients[0][o][s].reshape(-1)
    broken = (~torch.isfinite(gradient)).nonzero()

    def sees(part: Tensor) -> float:
        masked = torch.zeros_like(along)
        masked[part] = along[part]
        step = masked.reshape(real(direction).shape)
        if direction.is_complex():
            step = torch.view_as_complex(step)
        return float(quick(session, {s: step}, _SPACING)[column])

    def says(part: Tensor) -> float:
        return float(gradient[part] @ along[part])

    # An entry without a finite value is the wrong one.
    part = broken[0] if len(broken) else torch.arange(along.numel())
    try:
        whole = sees(part)
        while len(part) > 1:
            first, second = part.tensor_split(2)
            # The derivatives along the halves add up to the one along the whole.
            along_first = sees(first)
            along_second = whole - along_first
            if abs(says(first) - along_first) >= abs(says(second) - along_second):
                part, whole = first, along_first
            else:
                part, whole = second, along_second
    except ArithmeticError:
        return None
    flat = int(part[0])
    expected = gradient.clone()
    expected[flat] = whole / float(along[flat])
    shape = session.gradients[0][o][s].shape
    return session.entry(s, flat, gradient.reshape(shape), expected.reshape(shape))
