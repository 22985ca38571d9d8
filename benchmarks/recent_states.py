"""Evaluations that `RecentStates` saves as starts, on held-out text.

A trained model reads its test text, batch after batch: each batch is solved from zero, and from the states of
batches before it, looked up by one to three tokens. `evaluations` are those until every token is solved,
`steps` the mean of the tokens, and `late` the share of them that takes more than 12.

Run with `python benchmarks/recent_states.py RUN`, with the folder of a run, such as one of
`implicitly train character`. Its model must be at equilibrium.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from implicitly import Stopping
from implicitly.models import Equilibrium, Memory, RecentStates, SequenceModel
from implicitly.models.training import Batch, latest, restore
from rich.console import Console
from rich.table import Table
from torch import Tensor

LENGTHS, TOLERANCES, LATE, MOST = (1, 2, 3), (1e-2, 1e-3), 12, 300


class Work(NamedTuple):
    """Work of a solve."""

    evaluations: float
    steps: float
    late: float


def solved(
    model: SequenceModel, batch: Batch, memory: Memory | None, start: Tensor | None
) -> tuple[Work, Tensor, Memory]:
    """The work of a batch, its states, and the memory after it."""
    output = model(batch.tokens, memory, start=start)
    (solution,) = output.solutions
    steps = solution.steps.double()
    work = Work(output.evaluations, float(steps.mean()), float((steps > LATE).double().mean()))
    return work, output.states, output.memory


@torch.no_grad()
def compared(model: SequenceModel, batches: list[Batch], warm: int) -> dict[int, list[Work]]:
    """The work from zero (0) and from states of so many tokens, in the batches after the first `warm`."""
    found: dict[int, list[Work]] = {0: [], **{n: [] for n in LENGTHS}}
    recent = {n: RecentStates(tokens=n) for n in LENGTHS}
    memory: Memory | None = None
    for number, batch in enumerate(batches):
        work, states, after = solved(model, batch, memory, None)
        if number >= warm:
            found[0].append(work)
            for n in LENGTHS:
                start = recent[n].start(batch.tokens)
                found[n].append(solved(model, batch, memory, start)[0])
        for n in LENGTHS:
            recent[n].keep(batch.tokens, states)
        memory = after
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--warm", type=int, default=40, help="batches that are kept first")
    parser.add_argument("--batches", type=int, default=12, help="batches that are measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = latest(given.run)
    if file is None:
        raise SystemExit(f"{given.run} holds no checkpoint")
    run = restore(file)
    model, own = run.model().eval(), run.configuration
    if not isinstance(model.depth, Equilibrium):
        raise SystemExit(f"the model must be at equilibrium, got {model.depth!r}")
    held_out = own.data.open(own.batch, own.length, own.seed).held_out("test")
    batches = [batch for batch, _ in zip(held_out, range(given.warm + given.batches), strict=False)]
    table = Table("tolerance", "start", "evaluations", "steps", "late")
    for rtol in TOLERANCES:
        stopping = Stopping(rtol=0.1, rtol_residual=rtol, max_steps=MOST)
        model.depth = replace(model.depth, stopping=stopping, on_failure="accept")
        for n, works in compared(model, batches, given.warm).items():
            means = Work(*map(statistics.mean, zip(*works, strict=True)))
            start = f"states of {n} tokens" if n else "zero"
            table.add_row(
                f"{rtol:g}", start, f"{means.evaluations:.1f}", f"{means.steps:.1f}", f"{means.late:.1%}"
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
