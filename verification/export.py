"""Export of reports as JSON, JUnit XML and HTML."""

from __future__ import annotations

import html
import json
import math
import platform
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from .report import Report
from .verdict import Verdict


def as_json(report: Report) -> str:
    """A whole report as JSON; infinite and undefined numbers are `null`.

    Examples:
        >>> import json, torch
        >>> from implicitly.verification import verify
        >>> report = verify(torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True))
        >>> json.loads(as_json(report))["verdict"]
        'CORRECT'
    """
    content = {"verdict": report.verdict.name, "detectable": report.detectable, **asdict(report)}
    return json.dumps(_plain(content), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Verdict):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def as_junit(report: Report) -> str:
    """A report as a JUnit test suite: a case for each output and input.

    `WRONG` and `UNCONVERGED` are failures. `UNRELIABLE` is an error, since it must not pass.

    Examples:
        >>> import torch
        >>> from implicitly.verification import verify
        >>> report = verify(torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True))
        >>> as_junit(report).startswith('<testsuite name="gradients of')
        True
    """
    verdicts = [finding.verdict for finding in report.findings]
    failed = sum(v in (Verdict.WRONG, Verdict.UNCONVERGED) for v in verdicts)
    suite = ElementTree.Element(
        "testsuite",
        name=f"gradients of {report.layer}",
        tests=str(max(len(verdicts), 1)),
        failures=str(failed),
        errors=str(verdicts.count(Verdict.UNRELIABLE) + (not verdicts)),
    )
    for finding in report.findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=report.layer, name=f"{finding.output} in {finding.input}"
        )
        if finding.verdict is not Verdict.CORRECT:
            kind = "error" if finding.verdict is Verdict.UNRELIABLE else "failure"
            said = ElementTree.SubElement(case, kind, message=finding.reason)
            said.set("type", finding.verdict.name)
            said.text = f"{finding.worst or ''}\n{finding.cause}\n{finding.reproducer}"
    if not report.findings:
        case = ElementTree.SubElement(suite, "testcase", classname=report.layer, name="gradients")
        said = ElementTree.SubElement(case, "error", message="; ".join(report.notes))
        said.set("type", Verdict.UNRELIABLE.name)
    return ElementTree.tostring(suite, encoding="unicode")


_STYLE = """:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem
auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #8884;text-align:left}
.number{white-space:nowrap}code{overflow-wrap:anywhere}
.CORRECT{color:#1a7f37}.WRONG{color:#cf222e}.UNCONVERGED{color:#9a6700}.UNRELIABLE{color:#59636e}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}
.CORRECT{color:#3fb950}.WRONG{color:#ff7b72}.UNCONVERGED{color:#d29922}.UNRELIABLE{color:#9198a1}}
dt{font-weight:600}dd{margin:0 0 .4rem 1rem}
@media(max-width:50rem){tr:first-child{display:none}tr{display:block;padding:.6rem 0;
border-bottom:1px solid #8884}td{display:block;border:0;padding:.1rem 0}
td::before{content:attr(data-name) ": ";color:#6e7781}}"""


_LEGEND = (
    ("CORRECT", "no error above the smallest one that would have been seen"),
    ("WRONG", "an error that neither rounding, nor noise, nor the layer's own solver explains"),
    ("UNCONVERGED", "an error that the layer's own solver explains"),
    (
        "UNRELIABLE",
        "it cannot be told here: a kink, noise, a dtype too narrow, a layer that raises",
    ),
    (
        "error",
        "distance between the layer's derivative and the check's, relative to the derivative",
    ),
    ("floor", "the part that rounding, noise and the tolerance of an adjoint explain"),
    ("slack", "the part that the layer's own solver explains"),
    ("ratio", "the error in units of the largest one that floor and slack explain"),
)


def _versions() -> str:
    """Versions of the interpreter and the libraries that a report depends on."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
    return f"Python {platform.python_version()}, {libraries}"


def as_html(report: Report) -> str:
    """A report as one self-contained page.

    Examples:
        >>> import torch
        >>> from implicitly.verification import verify
        >>> report = verify(torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True))
        >>> '<td class="CORRECT" data-name="verdict">CORRECT</td>' in as_html(report)
        True
    """
    header = ("output", "input", "verdict", "error", "floor", "slack", "ratio", "what", "again")
    rows = []
    for f in report.findings:
        figures = zip(header[3:7], (f.error, f.floor, f.slack, f.ratio), strict=True)
        numbers = "".join(
            f'<td class="number" data-name="{name}">{value:.1e}</td>' for name, value in figures
        )
        what = ". ".join(part for part in (f.reason, str(f.worst or ""), f.cause) if part)
        rows.append(
            f'<tr><td data-name="output">{html.escape(f.output)}</td>'
            f'<td data-name="input">{html.escape(f.input)}</td>'
            f'<td class="{f.verdict.name}" data-name="verdict">{f.verdict.name}</td>{numbers}'
            f'<td data-name="what">{html.escape(what)}</td>'
            f'<td data-name="again"><code>{html.escape(f.reproducer)}</code></td></tr>'
        )
    remarks = [
        *report.notes,
        *(
            [f"errors ≥ {report.detectable:.1e} of a derivative would have been seen"]
            if report.detectable < 1
            else []
        ),
        f"checks: {', '.join(report.checks) or 'none'} ({report.calls} calls of the layer)",
        *(f"not exercised: {text}" for text in report.skipped()),
    ]
    listed = "".join(f"<li>{html.escape(remark)}</li>" for remark in remarks)
    heads = "".join(f"<th>{name}</th>" for name in header)
    verdict = report.verdict.name
    legend = "".join(f"<dt>{term}</dt><dd>{meaning}</dd>" for term, meaning in _LEGEND)
    made = html.escape(f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, {_versions()}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(report.layer)}"
        f'</title><style>{_STYLE}</style><h1><span class="{verdict}">{verdict}</span>: '
        f"{html.escape(report.layer)}</h1><table><tr>{heads}</tr>{''.join(rows)}</table>"
        f"<ul>{listed}</ul><h2>Legend</h2><dl>{legend}</dl><p>Made {made}; effort {report.effort}, "
        f"seed {report.seed}.</p></html>\n"
    )
