"""Detection power and false alarms of `verify` and of torch's gradcheck, on planted bugs and correct layers.

    python docs/results/verification.py [--jobs N] [--anew]

writes docs/results/verification.md in half an hour or more of one core. Every number on the page comes from
this run. Results are kept in build/verification.jsonl as they come: a run that is interrupted goes on where
it was, and `--anew` starts again.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.mutations import (
    BUGS,
    CORRECT,
    FAMILIES,
    HIDING_BUGS,
    SECOND_ORDER_BUGS,
    right_twice,
)
from implicitly.verification.mutations.bugs import LEAST_ERROR
from kept import asked

SIZES = ((1, 4), (3, 4), (16, 64))
SMALL = (3, 4)
SLOW_GRADCHECK_UP_TO = 100
"""Entries of the input; the full gradcheck calls the layer twice for every entry of every tensor."""
MESSAGE = "_run_slow_mode_and_get_error"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A layer to be examined, by name."""

    group: str
    name: str
    family: str
    batch: int
    width: int


@dataclass(frozen=True)
class Row:
    """What the tools said of it; `None` where a tool was not asked."""

    case: Case
    verdict: str
    same_again: bool | None
    seconds: float
    detectable: float | None
    named: bool
    expected: bool
    gradcheck: bool | None
    fast_gradcheck: bool | None
    gradgradcheck: bool | None


def cases() -> Iterator[Case]:
    """All of them, bugs that change nothing left out."""
    for batch, width in SIZES:
        for family in FAMILIES.values():
            tensors = drawn(family.name, batch, width)
            for bug in BUGS:
                if bug.shows(family, tensors):
                    yield Case("bug", bug.name, family.name, batch, width)
    for family in FAMILIES.values():
        for hiding in HIDING_BUGS:
            if family.name not in hiding.impossible:
                yield Case("hiding", hiding.name, family.name, *SMALL)
        for bug in SECOND_ORDER_BUGS:
            yield Case("second order", bug.name, family.name, *SMALL)
        yield Case("right twice", "right to second order", family.name, *SMALL)
    for batch, width in SIZES[1:]:
        for right in CORRECT:
            yield Case("correct", right.name, "", batch, width)
    for right in CORRECT:
        yield Case("correct, full", right.name, "", *SMALL)


def drawn(family: str, batch: int, width: int) -> tuple[Any, ...]:
    """Inputs of a family that require gradients."""
    tensors = FAMILIES[family].make(batch, width, torch.Generator().manual_seed(1))
    return tuple(tensor.requires_grad_() for tensor in tensors)


Made = tuple[Callable[..., Any], tuple[Any, ...]]


def layer_of(case: Case) -> tuple[Callable[[], Made], Callable[..., Any] | None, str]:
    """How a case is made, its equation, and what is expected in the cause or check."""
    if case.group.startswith("correct"):
        (right,) = (right for right in CORRECT if right.name == case.name)

        def make_right() -> Made:
            return right.make(case.batch, case.width, torch.Generator().manual_seed(1))

        return make_right, right.residual, ""
    family = FAMILIES[case.family]
    equation: Callable[..., Any] | None = family.residual
    if case.group == "right twice":
        plant: Callable[[Any], Any] = right_twice
        expected = ""
    elif case.group == "hiding":
        (hiding,) = (bug for bug in HIDING_BUGS if bug.name == case.name)
        plant, expected = hiding.plant, hiding.check
        equation = family.residual if hiding.equation else None
    else:
        bugs = BUGS if case.group == "bug" else SECOND_ORDER_BUGS
        (bug,) = (bug for bug in bugs if bug.name == case.name)
        plant, expected = bug.plant, bug.cause

    def make() -> Made:
        return plant(family), drawn(case.family, case.batch, case.width)

    return make, equation, expected


def examined(*names: Any) -> dict[str, Any]:
    """The verdicts on the case of these names: the columns of its row."""
    case = Case(*names)
    torch.set_num_threads(1)
    make, equation, expected = layer_of(case)
    effort: Any = "fast" if case.group in ("bug", "correct") else "full"
    reports = []
    began = time.process_time()
    repeats = 1 if case.group == "bug" and (case.batch, case.width) == SIZES[-1] else 2
    for _ in range(repeats):
        layer, inputs = make()
        reports.append(verify(layer, inputs, residual=equation, effort=effort))
    seconds = (time.process_time() - began) / repeats
    report = reports[0]
    wrong = [f for f in report.findings if f.verdict is Verdict.WRONG]
    checks = {e.check for f in wrong for e in f.evidence if e.verdict is Verdict.WRONG}
    right_place = True
    if case.group == "second order":
        right_place = {f.output for f in wrong} == {"output, second order"}
    elif case.group == "hiding":
        right_place = any(check.startswith(expected) for check in checks)
    entries = inputs[0].numel()
    twice = case.group in ("second order", "right twice")
    row = Row(
        case=case,
        verdict=report.verdict.name,
        same_again=str(reports[0]) == str(reports[1]) if repeats == 2 else None,
        seconds=seconds,
        detectable=report.detectable if report.detectable < float("inf") else None,
        named=bool(expected) and any(expected in f.cause for f in report.findings),
        expected=right_place,
        gradcheck=passes(*make(), fast=False)
        if entries <= SLOW_GRADCHECK_UP_TO and not twice and case.group != "correct, full"
        else None,
        fast_gradcheck=passes(*make(), fast=True)
        if not twice and case.group != "correct, full"
        else None,
        gradgradcheck=passes_twice(*make()) if twice else None,
    )
    return {name: value for name, value in asdict(row).items() if name != "case"}


def passes(layer: Callable[..., Any], inputs: tuple[Any, ...], fast: bool) -> bool:
    """Whether gradcheck lets a layer pass."""
    # Where the fast mode fails, torch forms whole Jacobians for its message alone: minutes here.
    module = sys.modules["torch.autograd.gradcheck"]
    with warnings.catch_warnings(), mock.patch.object(module, MESSAGE, return_value=""):
        warnings.simplefilter("ignore")
        return torch.autograd.gradcheck(layer, inputs, fast_mode=fast, raise_exception=False)


def passes_twice(layer: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    """Whether gradgradcheck lets a layer pass."""
    return torch.autograd.gradgradcheck(layer, inputs, raise_exception=False)


# --- The page --------------------------------------------------------------------------------------


def found(rows: list[Row]) -> str:
    """How many are WRONG, in the right place."""
    return f"{sum(r.verdict == 'WRONG' and r.expected for r in rows)}/{len(rows)}" if rows else "–"


def refused(answers: list[bool | None]) -> str:
    """How many a gradcheck does not let pass."""
    asked = [answer for answer in answers if answer is not None]
    return f"{sum(not answer for answer in asked)}/{len(asked)}" if asked else "–"


def beside(rows: list[Row]) -> str:
    """What the three tools found, and how often `verify` could not tell."""
    undecided = sum(r.verdict == "UNRELIABLE" for r in rows)
    return (
        f"{found(rows)} | {refused([r.gradcheck for r in rows])} | "
        f"{refused([r.fast_gradcheck for r in rows])} | {undecided}"
    )


def page(rows: list[Row]) -> str:
    """The page in Markdown."""

    def of(group: str, *size: int) -> list[Row]:
        return [
            r
            for r in rows
            if r.case.group == group and (not size or (r.case.batch, r.case.width) == size)
        ]

    def twice(group: str) -> str:
        return f"{found(of(group))} | {refused([r.gradgradcheck for r in of(group)])}"

    lines = [
        f"""# Verification on planted bugs

{len(BUGS)} gradient bugs, each planted in {len(FAMILIES)} families of equations (a tanh layer, a
layer-normed attention cell, a TrellisNet cell, a heat equation in root form); {len(HIDING_BUGS)} that
hide, in each family where their circumstance can arise; {len(SECOND_ORDER_BUGS)} whose first derivative
is right and whose second is not; and {len(CORRECT)} correct layers (every solver, tolerances from 1e-2 to
1e-13, warm starts, float32, ill-conditioned, non-smooth, in tiny and huge units). They are examined by
`verify` with the equation known, and by `torch.autograd.gradcheck` and `gradgradcheck` with their
default tolerances. A bug that changes no gradient by more than {LEAST_ERROR:.0e} at a size (`Bug.error`
computes it, beside the layer without the bug) is left out there. Made by

```sh
python docs/results/verification.py
```

## Bugs found in first derivatives

`verify(effort="fast")`; *cause named* counts those where the report names the bug.

| size | `verify` | `gradcheck` | its fast mode | inconclusive | cause named | CPU seconds, median |
|---|---|---|---|---|---|---|"""
    ]
    for size in SIZES:
        bugs = of("bug", *size)
        named = sum(r.named for r in bugs)
        median = statistics.median(r.seconds for r in bugs)
        lines.append(
            f"| B = {size[0]}, d = {size[1]} | {beside(bugs)} | {named}/{len(bugs)} "
            f"({100 * named / len(bugs):.0f} %) | {median:.2f} |"
        )
    missed = [
        f"{r.case.name} ({r.case.family}, B = {r.case.batch})"
        for r in of("bug")
        if r.verdict != "WRONG"
    ]
    unnamed = sorted({r.case.name for r in of("bug") if not r.named})
    lines.append(
        f"""
Not found by `verify`: {", ".join(missed) or "none"}. Not always named: {", ".join(unnamed) or "none"}.

A dash: the full gradcheck calls the layer twice for each entry of each tensor, which takes too long
at this size.

## Bugs that hide

`verify(effort="full")` at B = 3, d = 4; found only counts if the check that is made for it finds it.

| bug | `verify` | `gradcheck` | its fast mode | inconclusive |
|---|---|---|---|---|"""
    )
    for hiding in HIDING_BUGS:
        own = [r for r in of("hiding") if r.case.name == hiding.name]
        lines.append(f"| {hiding.name} | {beside(own)} |")
    lines.append(f"| all | {beside(of('hiding'))} |")
    lines.append(
        f"""
`gradcheck` is given the same float64 inputs, as its users do.

## Second derivatives

At B = 3, d = 4, by `verify(effort="full")`, which counts only if it finds the second derivative wrong
and the first correct.

| | `verify` | `gradgradcheck` |
|---|---|---|
| bugs found | {twice("second order")} |
| false alarms on correct layers | {twice("right twice")} |

## False alarms on correct layers

| size, effort | `verify` | `gradcheck` | its fast mode | inconclusive | CPU seconds, median |
|---|---|---|---|---|---|"""
    )
    for group, size in (("correct", SIZES[1]), ("correct, full", SMALL), ("correct", SIZES[2])):
        own = of(group, *size)
        effort = "full" if group.endswith("full") else "fast"
        median = statistics.median(r.seconds for r in own)
        lines.append(f"| B = {size[0]}, d = {size[1]}, {effort} | {beside(own)} | {median:.2f} |")
    lines.append(
        """
A layer whose solver stopped early is `UNCONVERGED`, which is no alarm; `gradcheck` has no such verdict.

## Smallest error that would have been seen

| size | largest over the correct layers in float64 | median |
|---|---|---|"""
    )
    for size in SIZES[1:]:
        values = sorted(
            r.detectable
            for r in of("correct", *size)
            if r.detectable is not None
            and r.verdict == "CORRECT"
            and "single precision" not in r.case.name
        )
        lines.append(
            f"| B = {size[0]}, d = {size[1]} | {values[-1]:.1e} | {statistics.median(values):.1e} |"
        )
    again = [r.same_again for r in rows if r.same_again is not None]
    lines.append(
        f"""
Relative to the derivative, with `effort="fast"`. Layers in float32 are left out (about 3e-4).

## The same again

Each layer, but for the bugs at the largest size, was made and examined twice: {sum(again)} of
{len(again)} reports were the same to the last digit printed.
"""
    )
    return "\n".join(lines)


def main() -> None:
    """Examine what is missing, and write the page."""
    kept, jobs = asked(__doc__, "verification.jsonl")
    wanted = list(cases())
    found = kept.all([list(astuple(case)) for case in wanted], examined, jobs)
    rows = [Row(case=case, **row) for case, row in zip(wanted, found, strict=True)]
    (HERE / "verification.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
