"""Products of permutations: learned at length 16, asked for at lengths up to 1024.

Every network makes the same number of steps on the same batches with the same optimiser. A cell of the table
has the share of positions whose product is right, that of the last positions alone, and evaluations of the
network. Those at equilibrium are asked with as many iterations as it takes, the TrellisNet also with fewer.
`--size 5` asks for the 120 permutations of five things. Takes five minutes on one core.

Run with `python benchmarks/permutations.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from implicitly import Exact, FixedPointIteration, PrefixAnderson, Solver, Stopping
from implicitly.models import (
    Depth,
    Equilibrium,
    EquilibriumRNN,
    RecurrentOptions,
    SequenceModel,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
)
from implicitly.models.data import PermutationTracking
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

LENGTHS, SEQUENCES, BATCH, TRAINED, LIMIT = (16, 32, 64, 256, 1024), 8, 32, 16, 40
CUTS = (8, 16, 32, 128)


def equilibrium(solver: Solver) -> Equilibrium:
    rule = Stopping(rtol=0.1, rtol_residual=1e-2, max_steps=LIMIT)
    adjoint = Exact(solver=PrefixAnderson(), stopping=Stopping(rtol=1e-2, max_steps=LIMIT))
    return Equilibrium(solver, rule, adjoint, checkpoint=False, on_failure="accept")


class GRU(nn.Module):
    """PyTorch's gated recurrent unit between an embedding and a linear map."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layer = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def log_probabilities(self, tokens: Tensor) -> tuple[Tensor, Any]:
        return self.out(self.layer(self.embedding(tokens))[0]).log_softmax(dim=-1), None


def transformer(depth: Depth) -> Callable[[int, int], SequenceModel]:
    return lambda n, width: Transformer(TransformerOptions(n, width=width, heads=4, depth=depth))


# Each with its learning rate.
NETWORKS: dict[str, tuple[Callable[[int, int], Any], float]] = {
    "`nn.GRU`": (GRU, 5e-3),
    "recurrent, equilibrium": (
        lambda n, width: EquilibriumRNN(
            RecurrentOptions(n, width=width, depth=equilibrium(FixedPointIteration()))
        ),
        5e-3,
    ),
    "TrellisNet, equilibrium": (
        lambda n, width: TrellisNet(
            TrellisNetOptions(
                n, output=width // 2, hidden=width // 2, deviation=0.1,
                depth=equilibrium(FixedPointIteration()),
            )
        ),
        1e-2,
    ),
    "Transformer, equilibrium": (transformer(equilibrium(PrefixAnderson())), 5e-3),
    "Transformer, 8 tied layers": (transformer(WeightTied(8)), 5e-3),
}  # fmt: skip


def train(network: Any, task: PermutationTracking, steps: int, rate: float) -> float:
    """Train at length 16, with a learning rate that falls linearly; the loss of the last step."""
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    drawn, loss = torch.Generator().manual_seed(0), torch.tensor(torch.nan)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - 0.9 * step / steps)
        tokens, targets = task.draw(BATCH, TRAINED, drawn)
        scores, _ = network.log_probabilities(tokens)
        loss = nn.functional.nll_loss(scores.flatten(0, 1), targets.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def asked(network: Any, task: PermutationTracking, length: int) -> tuple[float, float, str]:
    """The shares of right products, at all positions and at the last, and evaluations of the cell."""
    tokens, targets = task.draw(SEQUENCES, length, torch.Generator().manual_seed(length))
    scores, output = network.log_probabilities(tokens)
    right = (scores.argmax(dim=-1) == targets).float()
    evaluations = str(output.evaluations) if output is not None and output.solutions else ""
    return float(right.mean()), float(right[:, -1].mean()), evaluations


def asked_ways(name: str, network: Any) -> Iterator[str]:
    """Names of the ways to ask a network, whose depth is that of each in turn."""
    own = getattr(network, "depth", None)
    if not isinstance(own, Equilibrium):
        yield name
        return
    limits = (3 * max(LENGTHS), *(CUTS if name.startswith("TrellisNet") else ()))
    for limit in limits:
        rule = Stopping(rtol=0.1, rtol_residual=1e-3, max_steps=limit)
        network.depth = replace(own, stopping=rule)
        yield name if limit == limits[0] else f"the same, {limit} iterations"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=3, help="things that are permuted")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, console = PermutationTracking(given.size), Console(width=140)
    table = Table("network", "parameters", "CPU s", "loss", *map(str, LENGTHS))
    for name in given.only:
        make, rate = NETWORKS[name]
        torch.manual_seed(0)
        network, start = make(task.vocabulary, given.width), time.process_time()
        loss, seconds = train(network, task, given.steps, rate), time.process_time() - start
        network.eval()
        for way in asked_ways(name, network):
            found = [asked(network, task, length) for length in LENGTHS]
            cells = [f"{right:.3f}, {last:.3f} {work}" for right, last, work in found]
            parameters = f"{sum(p.numel() for p in network.parameters()):,}"
            table.add_row(way, parameters, f"{seconds:.0f}", f"{loss:.3f}", *cells)
            print(way, parameters, f"{seconds:.0f}", f"{loss:.4f}", *cells, sep=" | ", flush=True)
    console.print(table)


if __name__ == "__main__":
    main()
