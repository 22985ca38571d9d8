"""Evaluations of Anderson's method over those of plain iteration, on random linear maps.

On contractions, how often it needs more than plain iteration; on maps that expand, which plain iteration
cannot solve, how many it solves. Run with `python benchmarks/anderson_beside_plain.py [--maps N]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from implicitly import Anderson, FixedPointIteration, Solver, Stopping
from implicitly.solvers import Problem, solve
from rich.console import Console
from rich.table import Table

Generator = np.random.Generator
Draw = Callable[[Generator], np.ndarray]

SAFEGUARDS = (10.0, 1.0, None)
MAX_STEPS = 3000


def rotated(matrix: np.ndarray, generator: Generator) -> np.ndarray:
    basis = np.linalg.qr(generator.standard_normal(matrix.shape))[0]
    return basis @ matrix @ basis.T


def scaled(matrix: np.ndarray, generator: Generator) -> np.ndarray:
    """With a spectral radius between 0.5 and 0.99."""
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    return matrix * (generator.uniform(0.5, 0.99) / radius)


def symmetric(generator: Generator) -> np.ndarray:
    n = int(generator.integers(1, 25))
    return scaled(rotated(np.diag(generator.uniform(-1, 1, n)), generator), generator)


def gaussian(generator: Generator) -> np.ndarray:
    n = int(generator.integers(1, 25))
    return scaled(generator.standard_normal((n, n)), generator)


def triangular(generator: Generator) -> np.ndarray:
    n = int(generator.integers(1, 25))
    above = np.triu(generator.standard_normal((n, n)), 1) / np.sqrt(n)
    return scaled(above + np.diag(generator.uniform(-1, 1, n)), generator)


def superdiagonal(generator: Generator) -> np.ndarray:
    """Eigenvalues in `[−ρ, ρ]` and `ρ` above the diagonal."""
    n, radius = int(generator.integers(1, 25)), generator.uniform(0.5, 0.99)
    values = radius * generator.uniform(-1, 1, n)
    return rotated(np.diag(values) + radius * np.eye(n, k=1), generator)


def jordan(generator: Generator) -> np.ndarray:
    n, radius = int(generator.integers(2, 17)), generator.uniform(0.5, 0.9)
    return rotated(radius * np.eye(n) + 0.3 * np.eye(n, k=1), generator)


def expanding(generator: Generator) -> np.ndarray:
    """One to four eigenvalues of size 1.2 to 4.2, the others below 0.8."""
    n = int(generator.integers(2, 41))
    outside = np.arange(n) < generator.choice([1, 2, 4])
    sign = generator.choice([-1, 1])
    values = np.where(
        outside, sign * generator.uniform(1.2, 4.2, n), generator.uniform(-0.8, 0.8, n)
    )
    return rotated(np.diag(values), generator)


def evaluations(solver: Solver, matrix: np.ndarray, constant: np.ndarray, limit: int) -> int | None:
    """Evaluations to the default tolerance of float64, or `None` if `limit` do not reach it."""
    M, c = torch.from_numpy(matrix), torch.from_numpy(constant).unsqueeze(0)
    problem = Problem(lambda z: z @ M.T + c)
    result = solve(problem, solver, torch.zeros_like(c), Stopping(max_steps=limit))
    return problem.counts.evaluations if result.status[0] == 1 else None


def beside_plain(draw: Draw, solver: Solver, maps: int) -> tuple[int, int, float]:
    """Maps that plain iteration solves, how many took longer, and the geometric mean of ratios."""
    ratios = []
    for seed in range(maps):
        generator = np.random.default_rng(seed)
        matrix = draw(generator)
        constant = generator.standard_normal(len(matrix))
        plain = evaluations(FixedPointIteration(), matrix, constant, MAX_STEPS)
        if plain is not None:
            found = evaluations(solver, matrix, constant, 3 * plain)
            ratios.append((3 * plain if found is None else found) / plain)
    slower = sum(ratio > 1 for ratio in ratios)
    return len(ratios), slower, float(np.exp(np.mean(np.log(ratios))))


def solved(draw: Draw, solver: Solver, maps: int) -> int:
    count = 0
    for seed in range(maps):
        generator = np.random.default_rng(seed)
        matrix = draw(generator)
        constant = generator.standard_normal(len(matrix))
        count += evaluations(solver, matrix, constant, 400) is not None
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=200, help="maps of each kind (default 200)")
    maps = parser.parse_args().maps
    torch.set_num_threads(1)
    solvers = [Anderson(safeguard=safeguard) for safeguard in SAFEGUARDS]
    table = Table(
        title="Maps on which Anderson's method is slower than plain iteration (mean ratio)"
    )
    table.add_column("maps")
    for safeguard in SAFEGUARDS:
        table.add_column(f"safeguard={safeguard}", justify="right")
    for draw in (symmetric, gaussian, triangular, superdiagonal, jordan):
        found = [beside_plain(draw, solver, maps) for solver in solvers]
        entries = [f"{slower} of {count} ({ratio:.2f})" for count, slower, ratio in found]
        table.add_row(draw.__name__, *entries)
    expanded = [f"solves {solved(expanding, solver, maps)} of {maps}" for solver in solvers]
    table.add_row("expanding", *expanded)
    Console().print(table)


if __name__ == "__main__":
    main()
