"""Outcome of a cell, from the report of its method and the residual of its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .columns import with_notes
from .row import Outcome


def outcome_of(solved: bool, report: Mapping[str, Any]) -> Outcome:
    """The outcome of a cell whose method came back with this report.

    Examples:
        >>> outcome_of(False, {"failure": None, "claimed": True})
        'false success'
    """
    if report["failure"] is not None:
        return "error"
    if solved:
        return "solved"
    return "false success" if report["claimed"] else "not solved"


def unjudged(report: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row from `outcome` on, of a method that returned no value that can be checked.

    Examples:
        >>> report = {"failure": "ValueError: no", "reason": None, "notes": [], "columns": {"steps": 3}}
        >>> unjudged(report)
        {'steps': 3, 'outcome': 'error', 'exception': 'ValueError: no'}
    """
    text = report["failure"] or report["reason"]
    return {
        **report["columns"],
        "outcome": outcome_of(False, report),
        "exception": with_notes(text, report["notes"]),
    }


def is_report(found: Any) -> bool:
    """True for the report of a solve, as a process sends it; a cell may have sent anything.

    Examples:
        >>> is_report({"claimed": True})
        False
    """
    return (
        isinstance(found, dict)
        and isinstance(found.get("columns"), dict)
        and isinstance(found.get("notes"), list)
        and isinstance(found.get("claimed"), bool)
        and all(isinstance(found.get(name), (str, type(None))) for name in ("failure", "reason"))
        and isinstance(found.get("value", False), (dict, type(None)))
    )
