"""Broyden's method with a limited memory: cutting the rank of the updates beside forgetting the oldest.

Random maps `z ↦ W z + c` and `z ↦ tanh(W z + c)` with Gaussian `W` scaled to a spectral radius, six of
each, to 1e-8: how many are solved in 400 steps, and the median of their evaluations. Run with
`python benchmarks/broyden_memory.py [--kind bad]`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from implicitly import Broyden, Stopping
from implicitly.solvers import Problem, solve
from implicitly.solvers.quasi_newton.broyden import BroydenState
from rich.console import Console
from rich.table import Table
from torch import Tensor

SIZES = (40, 200)
RADII = (0.9, 0.99, 1.2, 1.5)
MEMORIES = (5, 10, 20, 50)
MAPS = 6


@dataclass(frozen=True)
class Forgetting(Broyden):
    """Broyden's method that removes the oldest update when its memory is full."""

    def _reduced(self, state: BroydenState) -> BroydenState:
        left, right = (rows[:, 1:] for rows in state.factors())
        updates = torch.empty_like(state.updates)
        updates[:, : self.memory - 1] = torch.stack((left, right), dim=2)
        direction = state.negative(state.residual_row, right, left)
        return replace(state, direction=direction, updates=updates, used=self.memory - 1)


def maps(n: int, radius: float) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((MAPS, n, n))
    weights *= radius / np.abs(np.linalg.eigvals(weights)).max(axis=1)[:, None, None]
    return torch.from_numpy(weights), torch.from_numpy(generator.standard_normal((MAPS, n)))


def evaluations(solver: Broyden, n: int, radius: float, linear: bool) -> str:
    weights, constants = maps(n, radius)

    def function(z: Tensor) -> Tensor:
        value = torch.einsum("bij,bj->bi", weights, z) + constants
        return value if linear else torch.tanh(value)

    stopping = Stopping(rtol=1e-8, max_steps=400, patience=400)
    result = solve(Problem(function), solver, torch.zeros_like(constants), stopping)
    steps = result.steps[result.status == 1]
    return f"{len(steps)}/{MAPS}" + (f" {np.median(steps):4.0f}" if len(steps) else "    –")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("good", "bad"), default="good")
    kind = parser.parse_args().kind
    torch.set_num_threads(1)
    table = Table(title="Solved, and median of evaluations: rank reduction | forgetting the oldest")
    for column in ("map", "n", "radius", *(f"memory {memory}" for memory in MEMORIES)):
        table.add_column(column, justify="right")
    for linear in (False, True):
        for n in SIZES:
            for radius in RADII:
                entries = [
                    " | ".join(
                        evaluations(solver(memory=memory, kind=kind), n, radius, linear)
                        for solver in (Broyden, Forgetting)
                    )
                    for memory in MEMORIES
                ]
                table.add_row("linear" if linear else "tanh", str(n), str(radius), *entries)
    Console().print(table)


if __name__ == "__main__":
    main()
