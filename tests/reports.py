"""What tests read from a report of the verifier."""

from __future__ import annotations

from implicitly.verification import Report, Verdict


def wrong_checks(report: Report) -> set[str]:
    """The names of the checks that found a wrong gradient."""
    return {
        piece.check
        for finding in report.findings
        for piece in finding.evidence
        if piece.verdict is Verdict.WRONG
    }
