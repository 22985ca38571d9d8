"""The copy memory task by a DEQ-Transformer of 13,000 parameters: the loss on 2,000 new sequences.

The configuration `copy-memory` with a delay of 100 by default, which takes some minutes on one core;
`--delay 400` is the paper's and takes half an hour. Loss and convergence are those at the equilibrium,
solved to a relative tolerance of 1e-4, in at most 24 iterations, for every token. The paper has 3.5e-6 at
T = 400; to know when, but not what, is worth `10 ln 8 / (T + 20)`.

Run with `python benchmarks/copy_memory.py`; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from implicitly import Stopping
from implicitly.models import Equilibrium, count_parameters
from implicitly.models.data import CopyMemory
from implicitly.models.training import evaluate, latest, load, restore, train
from rich.console import Console

SHORTER = (
    "shallow={steps: 1600, alone: 1000, least: 2, most: 6, residual: 0.1}", "steps=1950",
    "schedule={name: milestones, at: [1400, 1700, 1850], factor_each: 0.3, warm_up: 100}", "validate=1950",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    changes = [f"data.delay={given.delay}", f"seed={given.seed}"]
    run = load("copy-memory", [*changes, *(SHORTER if given.delay <= 100 else ())])
    folder = Path("build/runs") / f"copy-memory-{given.delay}-{given.seed}"
    start = time.perf_counter()
    train(run, folder, resume=True, accelerator="cpu", progress=True)
    seconds = time.perf_counter() - start
    file = latest(folder)
    assert file is not None  # for the type checker: the run has ended
    model = restore(file).model()
    own = model.depth
    assert isinstance(own, Equilibrium)  # for the type checker: that of the configuration
    model.depth = replace(own, stopping=Stopping(rtol=0.1, rtol_residual=1e-4, max_steps=24))
    data = run.data.open(run.batch, run.length, run.seed)
    found = evaluate(model, data.held_out("test"))
    Console().print(
        f"T = {given.delay}, {count_parameters(model).total} parameters, {run.steps} steps in "
        f"{seconds:.0f} s: "
        f"loss {found.loss:.2e} ({CopyMemory(given.delay).memoryless_loss:.4f} without memory), "
        f"{found.evaluations:.1f} evaluations, residual {found.residual:.1e}, "
        f"{found.unsolved:.2%} of tokens unsolved"
    )


if __name__ == "__main__":
    main()
