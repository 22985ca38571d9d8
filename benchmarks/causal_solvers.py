"""Solvers of causal equations on trained cells: leak, evaluations of both passes, over held-out text.

Each cell is trained by the package's own configuration `character`, shortened to 200 steps, and kept under
build/runs/causal-solvers. Then, on batches of held-out text and for each solver:

* leak: the largest change of log-probabilities of the first half of a sequence, where its second half has
  been replaced, after 8 iterations;
* evaluations until *every* token of a batch has a residual of at most 1e-2 and 1e-3 of its state, and how
  many tokens never had one of 1e-2 within 200;
* products of the adjoint until its residual is 1e-2 and 1e-3 of the cotangent, for each sequence.

Run with `python benchmarks/causal_solvers.py [TEXT]`, with a text file (`.txt`, `.txt.gz`) or folder; without
one, the text is that of Python's standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from implicitly import (
    GMRES,
    Anderson,
    Broyden,
    Exact,
    FixedPointIteration,
    NeumannSeries,
    PrefixAnderson,
    Solver,
    Stopping,
    fixed_point,
)
from implicitly.models import Equilibrium, SequenceModel
from implicitly.models.training import Batch, latest, load, restore, train
from rich.console import Console
from rich.table import Table
from torch import Tensor

RUNS = Path("build/runs/causal-solvers")
LIMIT, LEAKY_STEPS, TOLERANCES = 200, 8, (1e-2, 1e-3)
SHORT = (
    "steps=200",
    "schedule.warm_up=20",
    "monitor=0",
    "validate=200",
    "checkpoint=200",
)
TRELLISNET = (
    "model={name: trellis-net, output: 64, hidden: 96, depth: {name: equilibrium, on_failure: accept, "
    "stopping: {rtol: 0.1, rtol_residual: 1.0e-2, max_steps: 12}, gradient: {name: exact, "
    "solver: prefix-anderson, stopping: {rtol: 1.0e-2, max_steps: 12}}}}"
)
CELLS: dict[str, tuple[str, ...]] = {
    "Transformer": (),
    "Transformer, no penalty": ("shallow.residual=0.0",),
    "TrellisNet": (TRELLISNET,),
}
Coefficients = Literal["token", "sequence"]
FORWARD: tuple[tuple[Solver, Coefficients], ...] = (
    (FixedPointIteration(), "token"),
    (Anderson(kind="I"), "token"),
    (Anderson(kind="II"), "token"),
    (Broyden(line_search=False), "token"),
    (Anderson(kind="I"), "sequence"),
    (Anderson(kind="II"), "sequence"),
    (PrefixAnderson(kind="I", memory=5), "token"),
    (PrefixAnderson(memory=5), "token"),
    (PrefixAnderson(), "token"),
)
ADJOINT: tuple[Solver, ...] = (
    NeumannSeries(),
    GMRES(),
    Anderson(memory=5),
    PrefixAnderson(memory=5),
    PrefixAnderson(),
    PrefixAnderson(memory=2),
)


@dataclass(frozen=True)
class Case:
    """A batch with the map of its states."""

    batch: Batch
    function: Callable[[Tensor], Tensor]
    start: Tensor


def trained(cell: str, text: Path | None) -> SequenceModel:
    """The model of a cell, trained if it has not been; its configuration decides on the batches."""
    data = "data={name: standard-library, characters: 2000000}"
    if text is not None:
        data = f"data={{name: text-folder, folder: {text.resolve()}, level: character}}"
    changes = [data, *SHORT, *CELLS[cell]]
    key = hashlib.sha256("".join(changes).encode()).hexdigest()[:12]
    if latest(RUNS / key) is None:
        train(load("character", changes), RUNS / key, accelerator="cpu", progress=False)
    file = latest(RUNS / key)
    assert file is not None  # for the type checker: the run has ended
    run = restore(file)
    model = run.model().eval()
    model.batches = run.configuration.data.open(16, 64, 0)  # type: ignore[assignment]
    return model


def cases(model: SequenceModel, count: int) -> list[Case]:
    found, memory = [], None
    for batch, _ in zip(model.batches.held_out("test"), range(count), strict=False):  # type: ignore[union-attr,operator]
        with torch.no_grad():
            _, output = model.loss(batch.tokens, batch.targets, memory, depth=1)
        memory = output.memory
        found.append(Case(batch, output.pieces[0].function, torch.zeros_like(output.states)))
    return found


@contextmanager
def solving(model: SequenceModel, **changes: Any) -> Iterator[None]:
    own = model.depth
    assert isinstance(own, Equilibrium)  # for the type checker
    model.depth = replace(own, on_failure="accept", **changes)
    try:
        yield
    finally:
        model.depth = own


@torch.no_grad()
def leak(model: SequenceModel, case: Case, solver: Solver, coefficients: Coefficients) -> float:
    tokens = case.batch.tokens
    half, changed = tokens.shape[1] // 2, tokens.clone()
    changed[:, half:] = tokens[:, half:].flip(0, 1)
    stopping = Stopping(rtol=0.0, max_steps=LEAKY_STEPS)
    with solving(model, solver=solver, coefficients=coefficients, stopping=stopping):
        a, b = (model.log_probabilities(given)[0][:, :half] for given in (tokens, changed))
    return float((a - b).abs().max())


@torch.no_grad()
def evaluations(case: Case, solver: Solver, coefficients: Coefficients) -> tuple[list[int], int]:
    """Evaluations until every token meets each tolerance (`LIMIT + 1`: not), and tokens that never did."""
    worst: list[float] = []
    least = torch.full(case.start.shape[:2], torch.inf)

    def watched(z: Tensor) -> Tensor:
        nonlocal least
        value = case.function(z)
        residual = (value - z).norm(dim=2) / z.norm(dim=2)
        least = torch.minimum(least, residual.nan_to_num(torch.inf))
        worst.append(float(residual.nan_to_num(torch.inf).max()))
        return value

    fixed_point(
        watched, case.start, solver=solver, batch_dims=2 if coefficients == "token" else 1,
        causal=coefficients == "token", on_failure="accept",
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=LIMIT, patience=10**6, divergence=1e30),
        callback=lambda check: worst[-1] <= min(TOLERANCES),
    )  # fmt: skip
    met = [next((k for k, w in enumerate(worst, 1) if w <= t), LIMIT + 1) for t in TOLERANCES]
    return met, int((least > max(TOLERANCES)).sum())


def adjoint(model: SequenceModel, case: Case, solver: Solver, rtol: float) -> int:
    """Products of the adjoint to a tolerance, for the loss of a batch; `LIMIT + 1` if not solved."""
    rule = Stopping(rtol=rtol, max_steps=LIMIT)
    solution = Stopping(rtol=0.1, rtol_residual=1e-3, max_steps=LIMIT)
    with solving(
        model,
        solver=PrefixAnderson(),
        stopping=solution,
        gradient=Exact(solver=solver, stopping=rule),
    ):
        loss, output = model.loss(case.batch.tokens, case.batch.targets)
        loss.backward()
    model.zero_grad()
    found = output.solutions[0].adjoints[0]
    return found.evaluations if bool(found.converged.all()) else LIMIT + 1


def mean(counts: list[int]) -> str:
    """The mean, or in how many batches every token was solved."""
    solved = sum(count <= LIMIT for count in counts)
    return (
        f"{statistics.mean(counts):.1f}" if solved == len(counts) else f"– ({solved}/{len(counts)})"
    )


def named(solver: Solver) -> str:
    """The solver with its name and options that are not the defaults."""
    defaults = type(solver)()
    options = (
        f"{name}={getattr(solver, name)!r}"
        for name in solver.__dataclass_fields__
        if getattr(solver, name) != getattr(defaults, name)
    )
    return f"{type(solver).__name__}({', '.join(options)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("text", nargs="?", type=Path, help="a text file or folder")
    parser.add_argument("--batches", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    forward = Table(
        title=f"Evaluations until every token of 16 × 64 is solved, {given.batches} batches"
    )
    backward = Table(title="Products of the adjoint")
    for table, names in (
        (
            forward,
            ("cell", "solver", "coefficients per", "leak", "1e-2", "1e-3", "unsolved tokens"),
        ),
        (backward, ("cell", "solver", "1e-2", "1e-3")),
    ):
        for name in names:
            table.add_column(name)
    for cell in CELLS:
        model = trained(cell, given.text)
        batches = cases(model, given.batches)
        for solver, coefficients in FORWARD:
            per = "prefix" if isinstance(solver, PrefixAnderson) else coefficients
            found = [evaluations(case, solver, coefficients) for case in batches]
            most = max(leak(model, case, solver, coefficients) for case in batches[:2])
            tokens = sum(case.start.shape[0] * case.start.shape[1] for case in batches)
            unsolved = sum(count for _, count in found) / tokens
            counts = [mean([met[k] for met, _ in found]) for k in range(2)]
            forward.add_row(cell, named(solver), per, f"{most:.2g}", *counts, f"{unsolved:.1%}")
        for solver in ADJOINT:
            counts = [
                mean([adjoint(model, case, solver, rtol) for case in batches])
                for rtol in TOLERANCES
            ]
            backward.add_row(cell, named(solver), *counts)
    console = Console(width=130)
    console.print(forward)
    console.print(backward)


if __name__ == "__main__":
    main()
