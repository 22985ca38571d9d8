"""Verdicts and their order of severity."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(Enum):
    """Verdict of a verification on a gradient.

    `CORRECT`: no error above the smallest detectable one. `WRONG`: an error that neither rounding nor the
    layer's own solver explains. `UNCONVERGED`: an error as large as the solver's own. `UNRELIABLE`: the
    verification is undecided.

    Examples:
        >>> Verdict.worst([Verdict.CORRECT, Verdict.UNRELIABLE, Verdict.UNCONVERGED])
        <Verdict.UNRELIABLE: 'unreliable'>
    """

    CORRECT = "correct"
    UNCONVERGED = "unconverged"
    UNRELIABLE = "unreliable"
    WRONG = "wrong"

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """The most severe verdict: `WRONG`, then `UNRELIABLE`, then `UNCONVERGED`.

        Without verdicts it is `UNRELIABLE`.
        """
        order = list(Verdict)
        return max(verdicts, key=order.index, default=Verdict.UNRELIABLE)
