"""Time of a training step of a DEQ over that of its unrolled network of 8 layers, at equal parameters.

Both have the same weights, those of the unrolled network after some training steps, and the same batch;
steps alternate within one process, and the median ratio of a round is given. Iterations and adjoint
iterations are what the tolerance takes.

Run with `python benchmarks/model_step.py`.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from implicitly import Exact, FixedPointIteration, JacobianFree, Phantom, Stopping
from implicitly.implicit import Gradient
from implicitly.models import (
    Equilibrium,
    SequenceModel,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
)
from rich.console import Console
from rich.table import Table

BATCH, LENGTH, VOCABULARY, LAYERS, ROUNDS, TRAINED = 8, 64, 65, 8, 7, 60


def exact(rtol: float, limit: int) -> Exact:
    return Exact(stopping=Stopping(rtol=rtol, max_steps=limit))


def equilibrium(rtol: float, limit: int, gradient: Gradient | None = None) -> Equilibrium:
    return Equilibrium(
        solver=FixedPointIteration(),
        stopping=Stopping(rtol=0.1, rtol_residual=rtol, max_steps=limit),
        gradient=gradient or exact(rtol, limit),
        on_failure="accept",
    )


CASES = {
    "tolerance 1e-3, exact": equilibrium(1e-3, 200),
    "tolerance 1e-2, exact": equilibrium(1e-2, 200),
    "12 iterations, exact to 12": equilibrium(1e-2, 12),
    "12 iterations, exact to 6": equilibrium(1e-2, 12, exact(1e-2, 6)),
    "8 iterations, Phantom(2)": equilibrium(1e-2, 8, Phantom(steps=2)),
    "8 iterations, JacobianFree()": equilibrium(1e-2, 8, JacobianFree()),
}


def make(kind: str, depth: Any) -> SequenceModel:
    torch.manual_seed(0)
    if kind == "Transformer":
        return Transformer(TransformerOptions(VOCABULARY, width=128, heads=4, depth=depth))
    return TrellisNet(TrellisNetOptions(VOCABULARY, output=64, hidden=128, depth=depth))


def step(model: SequenceModel, tokens: torch.Tensor, targets: torch.Tensor) -> tuple[float, Any]:
    start = time.perf_counter()
    model.zero_grad()
    loss, output = model.loss(tokens, targets)
    loss.backward()
    return time.perf_counter() - start, output


def main() -> None:
    torch.set_num_threads(1)
    table = Table(title=f"A training step over that of {LAYERS} layers, batch {BATCH} × {LENGTH}")
    for column in ("model", "equilibrium", "time ratio", "evaluations", "adjoint's", "residual"):
        table.add_column(column, justify="left" if column in ("model", "equilibrium") else "right")
    for kind in ("Transformer", "TrellisNet"):
        unrolled = make(kind, WeightTied(LAYERS))
        data = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1))
        tokens, targets = data[:, :-1], data[:, 1:]
        optimiser = torch.optim.Adam(unrolled.parameters(), 1e-3)
        for _ in range(TRAINED):
            step(unrolled, tokens, targets)
            optimiser.step()
        for case, depth in CASES.items():
            model = make(kind, depth)
            model.load_state_dict(unrolled.state_dict())
            ratios = []
            for _ in range(ROUNDS):
                baseline, _ = step(unrolled, tokens, targets)
                taken, output = step(model, tokens, targets)
                ratios.append(taken / baseline)
            solution = output.solutions[0]
            adjoint = solution.adjoints[0].evaluations if solution.adjoints else 0
            table.add_row(
                kind, case, f"{statistics.median(ratios):.2f}", str(output.evaluations), str(adjoint),
                f"{solution.residual_norm.mean().item():.0e}",
            )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
