"""Plain steps one after another, until a look finds more than that every system goes on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..interface.plain import PlainSteps
from .monitor import Monitor


def run(
    plain: PlainSteps, z: Tensor, residual: Tensor, monitor: Monitor, step: int
) -> tuple[Any, int]:
    """Take plain steps from a point that has been looked at.

    Args:
        plain: The steps.
        z: The iterate.
        residual: Its residual.
        monitor: Looks at each step.
        step: The steps taken so far.

    Returns:
        The state of the solver after the last step, which has not been looked at yet, and its number.
    """
    now, first = (z, residual), step
    norm = monitor.read_plainly(z, residual).norm
    while True:
        before, earlier = now, norm
        now, step = plain.advance(*before), step + 1
        reading = monitor.read_plainly(*now)
        norm = reading.norm
        slow = plain.slowest is not None and (norm > plain.slowest * earlier).any()
        if slow or not monitor.passes(now[0], reading, step):
            return plain.state(before, now, step - first), step
