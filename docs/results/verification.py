"""Detection power and false alarms of `verify` and of torch's gradcheck, on planted bugs and correct layers.

    python docs/results/verification.py > docs/results/verification.md

Takes some minutes. Every number on the page comes from this run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from implicitly.verification import Report, Verdict, verify
from implicitly.verification.mutations import (
    BUGS,
    CORRECT,
    FAMILIES,
    SECOND_ORDER_BUGS,
    right_twice,
)

SIZES = ((1, 4), (3, 4), (16, 64))
SLOW_GRADCHECK_UP_TO = 100
"""Entries of the input; the full gradcheck calls the layer twice for every entry of every tensor."""


@dataclass
class Tally:
    """How often a tool called a layer wrong."""

    runs: int = 0
    found: int = 0
    inconclusive: int = 0
    missed: list[str] = field(default_factory=list)

    def count(self, name: str, wrong: bool, undecided: bool = False) -> None:
        self.runs += 1
        self.found += wrong
        self.inconclusive += undecided
        if not wrong:
            self.missed.append(name)


@dataclass
class Tools:
    """What each tool said about one set of layers."""

    verify: Tally = field(default_factory=Tally)
    gradcheck: Tally = field(default_factory=Tally)
    fast_gradcheck: Tally = field(default_factory=Tally)
    detectable: list[float] = field(default_factory=list)
    repeated: int = 0
    diagnosed: int = 0

    def examine(
        self,
        name: str,
        make: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]],
        residual: Callable[..., Any] | None,
        cause: str = "",
    ) -> None:
        reports: list[Report] = []
        for _ in range(2):
            layer, inputs = make()
            reports.append(verify(layer, inputs, residual=residual))
        verdict = reports[0].verdict
        self.diagnosed += bool(cause) and any(cause in f.cause for f in reports[0].findings)
        self.verify.count(name, verdict is Verdict.WRONG, verdict is Verdict.UNRELIABLE)
        self.repeated += str(reports[0]) == str(reports[1])
        if verdict is Verdict.CORRECT:
            self.detectable.append(reports[0].detectable)
        self.fast_gradcheck.count(name, not passes(*make(), fast=True))
        if inputs[0].numel() <= SLOW_GRADCHECK_UP_TO:
            self.gradcheck.count(name, not passes(*make(), fast=False))


def passes(layer: Callable[..., Any], inputs: tuple[Any, ...], fast: bool) -> bool:
    """Whether gradcheck lets a layer pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.autograd.gradcheck(layer, inputs, fast_mode=fast, raise_exception=False)


def planted_bugs(batch: int, width: int) -> Tools:
    """Every bug in every family where it shows."""
    tools = Tools()
    for family in FAMILIES.values():
        for bug in BUGS:
            if not bug.shows(family, batch):
                continue

            def make(family: Any = family, bug: Any = bug) -> Any:
                generator = torch.Generator().manual_seed(1)
                tensors = family.make(batch, width, generator)
                return bug.plant(family), tuple(t.requires_grad_() for t in tensors)

            tools.examine(f"{bug.name} ({family.name})", make, family.residual, bug.cause)
    return tools


def correct_layers(batch: int, width: int) -> Tools:
    """Every correct layer."""
    tools = Tools()
    for right in CORRECT:

        def make(right: Any = right) -> Any:
            return right.make(batch, width, torch.Generator().manual_seed(1))

        tools.examine(right.name, make, right.residual)
    return tools


def second_order() -> tuple[Tally, Tally]:
    """`verify` and gradgradcheck on bugs in the second derivative, at B = 3, d = 4."""
    ours, theirs = Tally(), Tally()
    for family in FAMILIES.values():
        for bug in SECOND_ORDER_BUGS:
            layer = bug.plant(family)
            tensors = drawn(family, 3, 4)
            report = verify(layer, tensors, residual=family.residual, effort="full")
            wrong = {f.output for f in report.findings if f.verdict is Verdict.WRONG}
            undecided = report.verdict is Verdict.UNRELIABLE
            ours.count(bug.name, wrong == {"output, second order"}, undecided)
            theirs.count(bug.name, not passes_twice(layer, tensors))
    return ours, theirs


def right_to_second_order() -> tuple[Tally, Tally]:
    """The same on layers that are right."""
    ours, theirs = Tally(), Tally()
    for family in FAMILIES.values():
        layer, tensors = right_twice(family), drawn(family, 3, 4)
        report = verify(layer, tensors, residual=family.residual, effort="full")
        undecided = report.verdict is Verdict.UNRELIABLE
        ours.count(family.name, report.verdict is Verdict.WRONG, undecided)
        theirs.count(family.name, not passes_twice(layer, tensors))
    return ours, theirs


def passes_twice(layer: Callable[..., Any], inputs: tuple[Any, ...]) -> bool:
    """Whether gradgradcheck lets a layer pass."""
    return torch.autograd.gradgradcheck(layer, inputs, raise_exception=False)


def drawn(family: Any, batch: int, width: int) -> tuple[Any, ...]:
    """Inputs of a family that require gradients."""
    tensors = family.make(batch, width, torch.Generator().manual_seed(1))
    return tuple(tensor.requires_grad_() for tensor in tensors)


def share(tally: Tally) -> str:
    """Found of all, as a cell of a table."""
    return f"{tally.found}/{tally.runs}" if tally.runs else "–"


def line(size: tuple[int, int], tools: Tools, *more: str) -> str:
    """A row of a table."""
    tallies = (tools.verify, tools.gradcheck, tools.fast_gradcheck)
    cells = [*map(share, tallies), str(tools.verify.inconclusive), *more]
    return f"| B = {size[0]}, d = {size[1]} | {' | '.join(cells)} |"


def listed(names: list[str]) -> str:
    """Names in a line."""
    return ", ".join(names) if names else "none"


def main() -> None:
    """Print the page."""
    bugs = {size: planted_bugs(*size) for size in SIZES}
    right = {size: correct_layers(*size) for size in SIZES[1:]}
    bugs_twice, right_twice_ = second_order(), right_to_second_order()
    print(f"""# Verification on planted bugs

{len(BUGS)} gradient bugs, each planted in {len(FAMILIES)} families of equations, and
{len(CORRECT)} correct layers (every solver, tolerances from 1e-2 to 1e-13, warm starts, float32,
ill-conditioned, non-smooth, in tiny and huge units), examined by `verify` with `effort="fast"` and the
equation known, and by
`torch.autograd.gradcheck` with its default tolerances, in full and in its fast mode. A bug that changes
nothing at a size or in a family is left out there where that is known beforehand (`Bug.shows`).
Made by [verification.py](verification.py), which prints this page.

## Bugs found

| size | `verify` | `gradcheck` | its fast mode | inconclusive | cause named |
|---|---|---|---|---|---|""")
    for size, tools in bugs.items():
        print(line(size, tools, f"{tools.diagnosed}/{tools.verify.runs}"))
    print("\nNot found by `verify`:\n")
    for size, tools in bugs.items():
        print(f"* B = {size[0]}, d = {size[1]}: {listed(tools.verify.missed)}")
    print("""
## False alarms on correct layers

| size | `verify` | `gradcheck` | its fast mode | inconclusive |
|---|---|---|---|---|""")
    for size, tools in right.items():
        print(line(size, tools))
    print("""
A layer whose solver stopped early is `UNCONVERGED`, which is no alarm; `gradcheck` has no such verdict.

## Smallest error that would have been seen

| size | largest over the correct layers in float64 | median |
|---|---|---|""")
    for size, tools in right.items():
        values = sorted(value for value in tools.detectable if value < 3e-5)
        print(
            f"| B = {size[0]}, d = {size[1]} | {values[-1]:.1e} | {values[len(values) // 2]:.1e} |"
        )
    print(f"""
Relative to the derivative. Layers in float32 are left out (about 3e-4).

## Second derivatives

{len(SECOND_ORDER_BUGS)} bugs whose first derivative is right, in every family at B = 3, d = 4, by
`verify(effort="full")` and `torch.autograd.gradgradcheck`. `verify` counts only if it finds the second
derivative wrong and the first one correct.

| | `verify` | `gradgradcheck` |
|---|---|---|
| bugs found | {share(bugs_twice[0])} | {share(bugs_twice[1])} |
| false alarms | {share(right_twice_[0])} | {share(right_twice_[1])} |""")
    everything = [*bugs.values(), *right.values()]
    same, runs = sum(t.repeated for t in everything), sum(t.verify.runs for t in everything)
    print(f"""
## The same again

Each layer was examined twice: {same} of {runs} reports were the same to the last digit printed.""")


if __name__ == "__main__":
    main()
