"""Causal-scan Newton beside the sequential loop: a GRU over ten thousand time steps.

Both run in turn in one process; the forward pass, and the backward pass to the parameters. Errors are
those of the states against the loop's.

Run with `python benchmarks/causal_scan.py`.
"""

from __future__ import annotations

import time

import torch
from implicitly import Stopping, recurrence
from rich.console import Console
from rich.table import Table
from torch import Tensor

LENGTH, INPUTS = 10_000, 4
CASES = ((1, 2), (1, 8), (8, 8))


def loop(cell: torch.nn.GRUCell, s0: Tensor, xs: Tensor) -> Tensor:
    state, states = s0, []
    for x in xs.unbind(1):
        state = cell(x, state)
        states.append(state)
    return torch.stack(states, dim=1)


def timed(states: Tensor, start: float) -> tuple[float, float]:
    """Seconds of the forward pass begun at `start`, and of the backward pass."""
    forward = time.perf_counter() - start
    start = time.perf_counter()
    states.sum().backward()
    return forward, time.perf_counter() - start


def main() -> None:
    table = Table(title=f"A GRU over {LENGTH} time steps, float64")
    for column in ("batch", "state", "steps", "scan, s", "loop, s", "loop / scan", "error"):
        table.add_column(column, justify="right")
    for batch, size in CASES:
        torch.manual_seed(0)
        cell = torch.nn.GRUCell(INPUTS, size, dtype=torch.float64)
        xs = torch.randn(batch, LENGTH, INPUTS, dtype=torch.float64)
        s0 = torch.zeros(batch, size, dtype=torch.float64)
        start = time.perf_counter()
        solution = recurrence(
            lambda s, x, cell=cell: cell(x, s), s0, xs, stopping=Stopping(rtol=1e-14)
        )
        scan = timed(solution.value, start)
        start = time.perf_counter()
        expected = loop(cell, s0, xs)
        sequential = timed(expected, start)
        error = float((solution.value - expected).detach().abs().max())
        table.add_row(
            str(batch), str(size), str(int(solution.steps.max())), f"{scan[0]:.2f} + {scan[1]:.2f}",
            f"{sequential[0]:.2f} + {sequential[1]:.2f}", f"{sum(sequential) / sum(scan):.2f}",
            f"{error:.1e}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
