"""Time of a training step of a DEQ over that of its unrolled networks of 8 and 16 layers.

All have the same weights and the same batch of characters: weights of the unrolled network after 200 steps
through 4 to 8 layers with a residual penalty, as in the configuration `character`. Steps alternate within one
process; ratios are medians over rounds of CPU time. Exact cases solve every token and every adjoint to a
tolerance; the others end at limits.

Run with `python benchmarks/model_step.py`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from implicitly import Exact, JacobianFree, Phantom, PrefixAnderson, Stopping
from implicitly.implicit import Gradient
from implicitly.models import (
    Equilibrium,
    Memory,
    SequenceModel,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
    residual_penalty,
)
from implicitly.models.data import Segments, standard_library
from rich.console import Console
from rich.table import Table
from torch import Tensor

BATCH, LENGTH, LAYERS, ROUNDS, TRAINED = 16, 64, (8, 16), 5, 200
SOLVED = 300  # A limit that no system reaches.


def exact(rtol: float, limit: int) -> Exact:
    return Exact(solver=PrefixAnderson(), stopping=Stopping(rtol=rtol, max_steps=limit))


def equilibrium(rtol: float, limit: int, gradient: Gradient | None = None) -> Equilibrium:
    rule = Stopping(rtol=0.1, rtol_residual=rtol, max_steps=limit)
    return Equilibrium(stopping=rule, gradient=gradient or exact(rtol, limit), on_failure="accept")


CASES = {
    "1e-2 in both passes, exact": equilibrium(1e-2, SOLVED),
    "1e-1 in both passes, exact": equilibrium(1e-1, SOLVED),
    "12 iterations, exact to 12": equilibrium(1e-2, 12),
    "12 iterations, exact to 6": equilibrium(1e-2, 12, exact(1e-2, 6)),
    "8 iterations, Phantom(2)": equilibrium(1e-2, 8, Phantom(steps=2)),
    "8 iterations, JacobianFree()": equilibrium(1e-2, 8, JacobianFree()),
}


@dataclass
class Given:
    """A batch, with the memory before it."""

    tokens: Tensor
    targets: Tensor
    memory: Memory | None


def make(kind: str, vocabulary: int, depth: Any) -> SequenceModel:
    torch.manual_seed(0)
    if kind == "Transformer":
        return Transformer(
            TransformerOptions(vocabulary, width=96, heads=4, inner=192, memory=LENGTH, depth=depth)
        )
    return TrellisNet(TrellisNetOptions(vocabulary, output=64, hidden=96, depth=depth))


def trained(kind: str, segments: Segments, vocabulary: int) -> tuple[SequenceModel, Given]:
    """The unrolled network after its steps, and the batch after them."""
    model, memory = make(kind, vocabulary, WeightTied(LAYERS[0])), None
    optimiser = torch.optim.Adam(model.parameters(), 2e-3, betas=(0.9, 0.98))
    drawn = torch.Generator().manual_seed(0)
    for number in range(TRAINED):
        tokens, targets = segments[number]
        layers = int(torch.randint(4, 9, (), generator=drawn))
        loss, output = model.loss(tokens, targets, memory, depth=layers)
        optimiser.zero_grad()
        (loss + 0.0003 * residual_penalty(output.pieces[0])).backward()
        optimiser.step()
        memory = output.memory
    return model, Given(*segments[TRAINED], memory)


def step(model: SequenceModel, given: Given, layers: int | None = None) -> tuple[float, Any]:
    start = time.process_time()
    model.zero_grad()
    loss, output = model.loss(given.tokens, given.targets, given.memory, depth=layers)
    loss.backward()
    return time.process_time() - start, output


def row(model: SequenceModel, given: Given, unrolled: SequenceModel) -> list[str]:
    """Median ratios to both networks, evaluations of both passes, and unsolved systems of both."""
    ratios: list[tuple[float, ...]] = []
    for _ in range(ROUNDS):
        others = [step(unrolled, given, layers)[0] for layers in LAYERS]
        taken, output = step(model, given)
        ratios.append((taken, *(taken / other for other in others)))
    (solution,) = output.solutions
    adjoint = solution.adjoints[0] if solution.adjoints else None
    seconds, *over = (statistics.median(column) for column in zip(*ratios, strict=True))
    unsolved = f"{(~solution.converged).double().mean().item():.1%}"
    return [
        f"{1e3 * seconds:.0f}", *(f"{ratio:.2f}" for ratio in over), str(output.evaluations), unsolved,
        "0" if adjoint is None else str(adjoint.evaluations),
        "" if adjoint is None else f"{(~adjoint.converged).double().mean().item():.1%}",
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    corpus = standard_library(400_000)
    segments = Segments(corpus.train, BATCH, LENGTH)
    table = Table(
        "model", "equilibrium", "ms", *(f"over {n} layers" for n in LAYERS),
        "evaluations", "unsolved", "adjoint's", "unsolved",
        title=f"A training step, batch {BATCH} × {LENGTH}",
    )  # fmt: skip
    for kind in ("Transformer", "TrellisNet"):
        unrolled, given = trained(kind, segments, len(corpus.vocabulary))
        for case, depth in CASES.items():
            model = make(kind, len(corpus.vocabulary), depth)
            model.load_state_dict(unrolled.state_dict())
            table.add_row(kind, case, *row(model, given, unrolled))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
