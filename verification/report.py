"""Report of a verification: frozen data, and its text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .evidence import Component, Evidence, combine
from .verdict import Verdict

LATER = 'effort="full" does'
NOT_EXAMINED = "not examined"
"""Reasons for which checks did not run, and tensors were not looked at."""
_NAMED = 4
_LONGEST = 160
"""Limit on the characters of a reason in the text; the JSON has all of it."""


@dataclass(frozen=True)
class Finding:
    """Finding about the derivative of one output in one input.

    Attributes:
        output: Name of the output.
        input: Name of the input, parameter or captured tensor.
        verdict: The verdict.
        error: Relative error of the layer's derivative.
        floor: Noise floor: largest relative error from rounding, noise or an adjoint's tolerance.
        slack: Relative error that the layer's own solver explains.
        ratio: Error in units of the largest error that floor and slack explain.
        detectable: The smallest detectable relative error.
        worst: The component with the largest error, if the verdict is `WRONG`.
        reason: Reason for the verdict, in words.
        cause: The usual bug that explains this gradient, if the verdict is `WRONG` and there is one.
        reproducer: A Python expression that reproduces this finding.
        evidence: Evidence of each check.

    Examples:
        >>> wrong = Evidence("differences", "output", "input 0", 1e-3, 1.0, 1e-9)
        >>> finding = Finding.of((wrong,), "verify(layer, x)")
        >>> finding.verdict.name, finding.reason
        ('WRONG', 'differences contradicts the layer by 1.0e-03 of the derivative')
    """

    output: str
    input: str
    verdict: Verdict
    error: float
    floor: float
    slack: float
    ratio: float
    detectable: float
    worst: Component | None
    reason: str
    reproducer: str
    evidence: tuple[Evidence, ...]
    cause: str = ""

    @staticmethod
    def of(evidence: tuple[Evidence, ...], reproducer: str, finer: str = "") -> Finding:
        """The finding that all evidence about one derivative supports.

        Args:
            evidence: Evidence of each check.
            reproducer: A Python expression that reproduces the finding.
            finer: A way to see smaller errors, in words.
        """
        verdict, deciding = combine(evidence)
        if deciding is None:
            raise ValueError("evidence must not be empty")
        size = deciding.scale or 1.0
        known = [e.detectable for e in evidence if e.reference]
        return Finding(
            output=deciding.output,
            input=deciding.input,
            verdict=verdict,
            error=deciding.error / size,
            floor=deciding.floor / size,
            slack=deciding.slack / size,
            ratio=deciding.ratio,
            detectable=min(known, default=float("inf")),
            worst=deciding.worst if verdict is Verdict.WRONG else None,
            reason=_reason(verdict, deciding, size, finer),
            reproducer=reproducer,
            evidence=evidence,
        )


@dataclass(frozen=True)
class Report:
    """The result of `verify`.

    Attributes:
        layer: Name of the layer.
        findings: One for each output and input.
        checks: Names of the checks that ran.
        not_exercised: Checks that did not run, with reasons.
        notes: Further observations.
        calls: Number of calls of the layer.
        effort: `"fast"` or `"full"`.
        seed: Seed of all random numbers.

    Examples:
        >>> import torch
        >>> from implicitly.verification import verify
        >>> x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
        >>> report = verify(torch.sin, x)
        >>> report.verdict.name, report["output", "input 0"].verdict.name
        ('CORRECT', 'CORRECT')
    """

    layer: str
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    not_exercised: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    calls: int
    effort: str
    seed: int

    @property
    def verdict(self) -> Verdict:
        """The most severe verdict; `UNRELIABLE` if nothing could be examined."""
        return Verdict.worst(finding.verdict for finding in self.findings)

    @property
    def detectable(self) -> float:
        """The smallest relative error that is detectable in every derivative."""
        return max((finding.detectable for finding in self.findings), default=float("inf"))

    def skipped(self) -> list[str]:
        """Checks that did not run, grouped by reason."""
        by_reason: dict[str, list[str]] = {}
        for what, why in self.not_exercised:
            by_reason.setdefault(_shortened(why), []).append(what)
        return [f"{', '.join(names)} ({why})" for why, names in by_reason.items()]

    def _left_out(self) -> list[str]:
        """One short line about the checks that did not run, and one about tensors that were not examined."""
        reserved = [what for what, why in self.not_exercised if why == LATER]
        tensors = [f"{what}" for what, why in self.not_exercised if why == NOT_EXAMINED]
        others = [what for what, why in self.not_exercised if why not in (LATER, NOT_EXAMINED)]
        parts = list(others[:_NAMED])
        if len(others) > _NAMED:
            parts.append(f"{len(others) - _NAMED} more")
        if reserved:
            parts.append(f'{len(reserved)} that effort="full" adds')
        lines = (
            [f"not exercised: {', '.join(parts)} (report.skipped() has the reasons)"]
            if parts
            else []
        )
        if tensors:
            lines.insert(0, f"not examined: {', '.join(tensors)}")
        return lines

    def __getitem__(self, pair: tuple[str, str]) -> Finding:
        """The finding about an output and an input, by their names."""
        for finding in self.findings:
            if (finding.output, finding.input) == pair:
                return finding
        listed = ", ".join(f"({f.output!r}, {f.input!r})" for f in self.findings)
        raise KeyError(f"no finding about {pair!r}; there are {listed or 'none'}")

    def __str__(self) -> str:
        lines = [f"{self.verdict.name}: {self.layer}"]
        if self.findings:
            lines += ["", *_table(self.findings)]
            if self.detectable < 1:
                lines += [
                    "",
                    f"errors ≥ {self.detectable:.1e} of a derivative would have been seen",
                ]
        for finding in self.findings:
            if finding.verdict is Verdict.CORRECT:
                continue
            lines += ["", f"{finding.output} in {finding.input}: {finding.reason}"]
            if finding.worst is not None:
                lines.append(f"  {finding.worst}")
            if finding.cause:
                lines.append(f"  likely cause: {finding.cause}")
            lines.append(f"  again: {finding.reproducer}")
        if self.notes:
            lines += ["", *(f"note: {note}" for note in self.notes)]
        lines += [
            "",
            f"checks: {', '.join(self.checks) or 'none'} ({self.calls} calls of the layer)",
        ]
        lines += self._left_out()
        return "\n".join(lines)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rsplit(" ", 1)[0] + " …"


def _table(findings: Iterable[Finding]) -> list[str]:
    header = ("output", "input", "verdict", "error", "floor", "slack", "ratio")
    rows = [
        (f.output, f.input, f.verdict.name, *(_number(v) for v in (f.error, f.floor, f.slack, f.ratio)))
        for f in findings
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(header), *map(line, rows)]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def _reason(verdict: Verdict, evidence: Evidence, size: float, finer: str) -> str:
    error = f"{evidence.error / size:.1e}"
    if evidence.fault:
        return evidence.fault
    if evidence.unreliable:
        return f"{evidence.check} cannot tell: {evidence.unreliable}"
    if verdict is Verdict.WRONG and not evidence.error < float("inf"):
        return f"{evidence.check} found a gradient that is not finite"
    if verdict is Verdict.WRONG:
        return f"{evidence.check} contradicts the layer by {error} of the derivative"
    if verdict is Verdict.UNCONVERGED:
        return (
            f"the layer's solver left an error which explains the difference; the gradient is "
            f"off by {error}: tighten the solver's tolerance"
        )
    if verdict is Verdict.UNRELIABLE and evidence.error > evidence.limit:
        if evidence.detail:
            return f"{evidence.check} differs by {error}, but {evidence.detail}"
        return (
            f"{evidence.check} differs by {error}, but the layer's values are noisy as those of an "
            "unfinished iteration: give residual= or tighten="
        )
    if verdict is Verdict.UNRELIABLE:
        hidden = f"errors below {evidence.detectable:.1e} of the derivative cannot be seen here"
        return f"{hidden}: {finer}" if finer else hidden
    return f"{evidence.check} agrees within {evidence.floor / size:.1e}"
