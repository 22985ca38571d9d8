"""Sparse systems with a full row and column, and a membrane over an obstacle, beside code written by hand.

`bordered`: `−u″ + u³ = p₁ sin 5s + λ (1 + s)` without flux at the ends, with `∫ u = p₀`, so that one row and
one column of the Jacobian are full. By hand: Newton's method with the border eliminated by two solves with
SuperLU. Gradient and second derivative are those of `Σ w u` in `p`.

`obstacle`: `−Δu + 1 ≥ 0` above a paraboloid on the unit square. By hand: the primal–dual active set method
with SuperLU. The gradient is that of the mean in the load.

Times are the best of three, on one thread, in one process, after a first call that compiles.
Run with `python benchmarks/sparse_structures.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import implicitly
import numpy as np
import torch
from implicitly import NewtonKrylov, SparseLU
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

TIMED = 3
NODES, SIDE = 20_000, 100


def best(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result of the last of several runs, and the time of the fastest."""
    run()
    times = []
    for _ in range(TIMED):
        begin = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - begin)
    return found, min(times)


def bordered(n: int) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[], np.ndarray]]:
    """The residual, and the solution by hand for `p = (0.5, 3)`."""
    s = (np.arange(n) + 0.5) / n
    weight, source = torch.from_numpy(1 + s), torch.from_numpy(np.sin(5 * s))

    def residual(x: Tensor, p: Tensor) -> Tensor:
        u, multiplier = x[:-1], x[-1]
        padded = torch.cat((u[:1], u, u[-1:]))
        laplacian = (padded[2:] - 2 * u + padded[:-2]) * n**2
        rest = -laplacian + u**3 - p[1] * source - multiplier * weight
        return torch.cat((rest, (u.mean() - p[0]).reshape(1)))

    main = np.full(n, 2.0 * n**2)
    main[[0, -1]] = n**2
    off = -np.ones(n - 1) * n**2
    laplace = sparse.diags([off, main, off], [-1, 0, 1]).tocsr()

    def by_hand() -> np.ndarray:
        u, multiplier = np.zeros(n) + 0.5, 0.0
        for _ in range(60):
            right = -(laplace @ u + u**3 - 3 * np.sin(5 * s) - multiplier * (1 + s))
            factors = splu((laplace + sparse.diags(3 * u**2)).tocsc())
            one, other = factors.solve(right), factors.solve(1 + s)
            change = (0.5 - u.mean() - one.mean()) / other.mean()
            move = one + change * other
            u, multiplier = u + move, multiplier + change
            if np.abs(move).max() < 1e-10:
                break
        return np.append(u, multiplier)

    return residual, by_hand


def obstacle(m: int) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Callable[[], np.ndarray]]:
    """The left side, the obstacle, and the solution by hand for a load of one."""
    h = 1 / (m + 1)
    side = (torch.arange(m, dtype=torch.float64) + 1) * h
    x, y = torch.meshgrid(side, side, indexing="ij")
    height = (0.25 - 2 * (x - 0.5) ** 2 - 2 * (y - 0.5) ** 2).reshape(-1)

    def left(u: Tensor, load: Tensor) -> Tensor:
        around = torch.nn.functional.pad(u.reshape(m, m), (1, 1, 1, 1))
        total = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
        return (4 * u - total.reshape(-1)) / h**2 + load

    line = sparse.diags([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1]) / h**2
    one = sparse.identity(m)
    matrix = (sparse.kron(one, line) + sparse.kron(line, one)).tocsr()
    low = height.numpy()

    def by_hand() -> np.ndarray:
        u, active = np.maximum(low, 0), np.zeros(m * m, dtype=bool)
        while True:
            held = u - low < (matrix @ u + 1) * h**2 / 4
            if (held == active).all():
                return u
            active = held
            free = sparse.diags((~active).astype(float))
            whole = free @ matrix + sparse.diags(active.astype(float))
            u = splu(whole.tocsc()).solve(np.where(active, low, -1.0))

    return left, height, by_hand


def measure_bordered(table: Table) -> None:
    residual, by_hand = bordered(NODES)
    expected, hand = best(by_hand)
    p = torch.tensor([0.5, 3.0], dtype=torch.float64, requires_grad=True)
    start = torch.full((NODES + 1,), 0.5, dtype=torch.float64)
    weight = torch.linspace(-1, 1, NODES + 1, dtype=torch.float64)
    solver = NewtonKrylov(linear_solver=SparseLU())
    solution, value = best(lambda: implicitly.root(residual, start, p, solver=solver))
    loss = weight @ solution.value
    (slope,), first = best(lambda: torch.autograd.grad(loss, p, create_graph=True))
    _, second = best(lambda: torch.autograd.grad(slope.sum(), p, retain_graph=True))
    error = np.abs(solution.value.detach().numpy() - expected).max()
    row(table, "bordered", NODES + 1, hand, value, first, second, error)


def measure_obstacle(table: Table) -> None:
    left, height, by_hand = obstacle(SIDE)
    expected, hand = best(by_hand)
    load = torch.ones(SIDE * SIDE, dtype=torch.float64, requires_grad=True)
    start, bounds = height.clamp(min=0.0), (height, torch.inf)
    solution, value = best(lambda: implicitly.complementarity(left, start, load, bounds=bounds))
    mean = solution.value.mean()
    _, first = best(lambda: torch.autograd.grad(mean, load, retain_graph=True))
    error = np.abs(solution.value.detach().numpy() - expected).max()
    row(table, "obstacle", SIDE * SIDE, hand, value, first, None, error)


def row(
    table: Table, name: str, n: int, hand: float, value: float, first: float,
    second: float | None, error: float,
) -> None:  # fmt: skip
    shown = "" if second is None else f"{second:.2f}"
    times = (f"{hand:.2f}", f"{value:.2f}", f"{value / hand:.1f}", f"{first:.2f}", shown)
    table.add_row(name, f"{n:,}", *times, f"{error:.0e}")


def main() -> None:
    torch.set_num_threads(1)
    table = Table(
        "problem", "unknowns", "by hand, s", "value, s", "ratio", "gradient, s", "second, s",
        "difference",
    )  # fmt: skip
    measure_bordered(table)
    measure_obstacle(table)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
