"""Products of permutations: learned at length 16, asked for at lengths up to 1024.

The configuration `permutations`, a recurrent network at equilibrium, beside a transformer of 8 weight-tied
layers. `right` is the share of positions whose product is right, and `last` that of the last ones alone.
The equilibrium is found by plain iteration, which makes one more time step exact in each iteration at least.
Takes six minutes on one core.

Run with `python benchmarks/permutations.py`; a run that was stopped goes on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from implicitly import FixedPointIteration, Stopping
from implicitly.models import Equilibrium, SequenceModel, count_parameters
from implicitly.models.data import PermutationTracking
from implicitly.models.training import latest, load, restore, train
from rich.console import Console
from rich.table import Table

LENGTHS, SEQUENCES = (16, 32, 64, 256, 1024), 16
TRANSFORMER = (
    "model={name: transformer, width: 64, heads: 4, depth: {name: weight-tied, depth: 8}}",
    "optimiser.rate=2e-3", "optimiser.betas=[0.9, 0.98]", "steps=3000", "validate=1000",
)  # fmt: skip


def trained(name: str, *changes: str) -> SequenceModel:
    """The network of a run, which is made if it is not there."""
    run, folder = load("permutations", changes), Path("build/runs") / f"permutations-{name}"
    train(run, folder, resume=True, accelerator="cpu", progress=True)
    file = latest(folder)
    assert file is not None  # for the type checker: the run has ended
    return restore(file).model().eval()


@torch.no_grad()
def asked(model: SequenceModel, length: int) -> tuple[float, float, str]:
    """The shares of right products, at all positions and at the last, and evaluations of the cell."""
    generator = torch.Generator().manual_seed(length)
    tokens, targets = PermutationTracking(3).draw(SEQUENCES, length, generator)
    scores, output = model.log_probabilities(tokens)
    right = (scores.argmax(dim=-1) == targets).float()
    evaluations = str(output.evaluations) if output.solutions else ""
    return float(right.mean()), float(right[:, -1].mean()), evaluations


def main() -> None:
    torch.set_num_threads(1)
    recurrent = trained("recurrent")
    stopping = Stopping(rtol=1e-3, max_steps=2 * max(LENGTHS))
    recurrent.depth = Equilibrium(FixedPointIteration(), stopping)
    networks = {
        "recurrent, equilibrium": recurrent,
        "transformer, 8 layers": trained("transformer", *TRANSFORMER),
    }
    table = Table("network", "parameters", "length", "right", "last", "evaluations")
    for name, model in networks.items():
        parameters = f"{count_parameters(model).total:,}"
        for length in LENGTHS:
            right, last, evaluations = asked(model, length)
            table.add_row(name, parameters, str(length), f"{right:.3f}", f"{last:.3f}", evaluations)
    Console().print(table)


if __name__ == "__main__":
    main()
