"""Evidence: the result of one check on one derivative, and the verdict that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .verdict import Verdict

RESOLUTION = 1e-2
"""A check calls a gradient correct only if it would have seen a relative error of this size."""


NEGLIGIBLE = 1e-6
"""A relative doubt below this leaves a gradient correct, up to the detectable error."""


@dataclass(frozen=True)
class Component:
    """The entry of a gradient with the largest error.

    Attributes:
        index: Its index in the tensor.
        row: The batch row; `None` for a tensor without one.
        value: The layer's value.
        reference: The check's value.

    Examples:
        >>> print(Component((1, 2), 1, -0.5, 0.5))
        component [1, 2] (batch row 1): -0.5, expected 0.5
    """

    index: tuple[int, ...]
    row: int | None
    value: float
    reference: float

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]"
        row = "" if self.row is None else f" (batch row {self.row})"
        return f"component {where}{row}: {self.value:.9g}, expected {self.reference:.9g}"


@dataclass(frozen=True)
class Evidence:
    """Result of one check on the derivative of an output in an input.

    Attributes:
        check: Name of the check.
        output: Name of the output.
        input: Name of the input.
        error: Distance between the layer's derivative and the check's.
        scale: Size of the derivative, in the same units.
        floor: Largest error from rounding, noise, or the tolerance of an adjoint solve.
        slack: Distance of the exact derivatives at the layer's solution and at the polished one.
        lag: Largest error of the derivative in units of the slack, if the solver is the only cause.
        doubt: Largest error with possible causes that this check cannot see.
        reference: True if the check knows the derivative; an identity knows a relation only.
        unreliable: Reason why the check is undecided; empty if it is decided.
        worst: The entry with the largest error, if the check sees entries.
        detail: Further measurements, in words.
        fault: A mistake that makes the derivative wrong whatever its value here, in words.

    Examples:
        >>> evidence = Evidence("differences", "output", "input 0", 1e-12, 1.0, 1e-9)
        >>> evidence.verdict.name, evidence.detectable
        ('CORRECT', 1e-09)
    """

    check: str
    output: str
    input: str
    error: float
    scale: float
    floor: float
    slack: float = 0.0
    lag: float = 1.0
    doubt: float = 0.0
    reference: bool = True
    unreliable: str = ""
    worst: Component | None = None
    detail: str = ""
    fault: str = ""

    @property
    def limit(self) -> float:
        """The largest explained error."""
        return self.floor + self.lag * self.slack

    @property
    def ratio(self) -> float:
        """The error in units of the largest explained one."""
        if self.error == 0:
            return 0.0
        return self.error / self.limit if self.limit > 0 else float("inf")

    @property
    def detectable(self) -> float:
        """The smallest detectable error, relative to the derivative."""
        if self.unreliable:
            return float("inf")
        seen = self.limit + self.doubt
        if self.scale > 0:
            return seen / self.scale
        return 0.0 if seen == 0 else float("inf")

    @property
    def verdict(self) -> Verdict:
        """The verdict of this check alone.

        Examples:
            >>> Evidence("differences", "output", "input 0", 1e-3, 1.0, 1e-9).verdict.name
            'WRONG'
            >>> Evidence("differences", "output", "input 0", 1e-3, 1.0, 1e-9, slack=2e-3).verdict.name
            'UNCONVERGED'
        """
        if self.fault:
            return Verdict.WRONG
        if self.unreliable or not self.error < float("inf"):
            return Verdict.UNRELIABLE if self.unreliable else Verdict.WRONG
        if self.error > self.limit + self.doubt:
            return Verdict.WRONG
        if self.error > self.limit:
            negligible = self.limit + self.doubt <= NEGLIGIBLE * self.scale
            return Verdict.CORRECT if negligible else Verdict.UNRELIABLE
        if self.error > self.floor:
            return Verdict.UNCONVERGED
        if self.scale > 0 and self.floor + self.doubt > RESOLUTION * self.scale:
            return Verdict.UNRELIABLE
        return Verdict.CORRECT

    @property
    def blind(self) -> bool:
        """True if the check sees no error, and would not have seen one of 1 %."""
        return (
            self.verdict is Verdict.UNRELIABLE and not self.unreliable and self.error <= self.limit
        )


def combine(evidence: Sequence[Evidence]) -> tuple[Verdict, Evidence | None]:
    """The verdict that all evidence about one derivative supports, and the piece that decides it.

    Any check may find an error. Only decided checks that know the derivative may call it correct.

    Examples:
        >>> passed = Evidence("identity", "output", "input 0", 0.0, 1.0, 1e-9, reference=False)
        >>> combine([passed])[0].name
        'UNRELIABLE'
    """
    wrong = [e for e in evidence if e.verdict is Verdict.WRONG]
    if wrong:
        # Of several that see an error, prefer one that knows the derivative, then one that names a component.
        return Verdict.WRONG, max(
            wrong, key=lambda e: (e.reference, e.fault != "", e.worst is not None, e.ratio)
        )
    known = [e for e in evidence if e.reference]
    if not known:
        return Verdict.UNRELIABLE, max(evidence, key=lambda e: e.ratio, default=None)
    # A relation that is too rough here says nothing; nor does one direction of several that are fine enough.
    fine = [e for e in known if e.verdict is Verdict.CORRECT]
    telling = [e for e in evidence if not e.blind or (e.reference and not fine)]
    for verdict in (Verdict.UNRELIABLE, Verdict.UNCONVERGED):
        such = [e for e in telling if e.verdict is verdict and (e.reference or not e.unreliable)]
        if such:
            return verdict, max(such, key=lambda e: e.ratio)
    return Verdict.CORRECT, max(fine or known, key=lambda e: e.ratio)
