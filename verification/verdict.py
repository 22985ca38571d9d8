"""The four verdicts, and which of two weighs more."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(Enum):
    """What a verification found out about a gradient.

    `CORRECT`: no error above the smallest that would have been seen. `WRONG`: an error that neither
    rounding nor the layer's own solver explains. `UNCONVERGED`: an error as large as the solver's
    own. `UNRELIABLE`: it cannot be told here.

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
        """The one that decides: `WRONG`, then `UNRELIABLE`, then `UNCONVERGED`.

        Nothing examined is `UNRELIABLE`.
        """
        order = list(Verdict)
        return max(verdicts, key=order.index, default=Verdict.UNRELIABLE)
