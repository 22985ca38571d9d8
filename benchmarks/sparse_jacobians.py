"""Newton's method with sparse Jacobians that nobody has described: products, entries and time.

Each problem is solved to a relative residual of 1e-8 by `NewtonKrylov(linear_solver=SparseLU())`, which finds
the entries of its first Jacobian from products alone, and by `NewtonKrylov()`, which has no preconditioner
here. Products are those of the whole solve, `found by` those of them that the pattern took. Times are the
best of two, on one thread, in one process.

Run with `python benchmarks/sparse_jacobians.py`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from implicitly import NewtonKrylov, Solution, SparseLU, Stopping, problems, root
from implicitly.problems import TestProblem
from implicitly.solvers.linear.pattern_search import find_pattern
from implicitly.solvers.linear.sparse_pattern import noise_level
from rich.console import Console
from rich.table import Table

CASES: list[tuple[str, dict[str, Any], list[int]]] = [
    ("bratu", {}, [1024, 10_000, 99_856]),
    ("convection-diffusion", {}, [1024, 10_000, 99_856]),
    ("driven-cavity", {"reynolds": 100.0}, [1152, 10_082, 100_352]),
    ("troesch", {}, [1000, 10_000, 100_000]),
    ("power-flow", {}, [1000, 10_000, 50_000]),
    ("broyden-banded", {}, [1000, 10_000, 100_000]),
]
TIMED = 2
# Products after which `NewtonKrylov()` counts as failed, and unknowns up to which it is tried.
LIMIT, TRIED = 20_000, 20_000


def solved(problem: TestProblem, n: int, sparse: bool) -> tuple[Solution, float]:
    """The solution, and the seconds that it took."""
    # What a solver remembers would make the second solve another one.
    solver = NewtonKrylov(linear_solver=SparseLU()) if sparse else NewtonKrylov()
    stopping = Stopping(rtol=1e-8, max_steps=None if sparse else LIMIT // solver.max_linear_steps)
    begin = time.perf_counter()
    solution = root(
        problem.function, problem.start(n), solver=solver, stopping=stopping, on_failure="accept"
    )
    return solution, time.perf_counter() - begin


def pattern_of(problem: TestProblem, n: int) -> tuple[int, float, int]:
    """Products that finding the pattern takes, entries in a row on average, and colours."""
    count, start = 0, problem.start(n)

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        tangent = torch.func.jvp(problem.function, (start,), (torch.from_numpy(v),))[1]
        return tangent.numpy()[None]

    pattern = find_pattern(product, n, np.dtype("d"), noise_level(2.0**-52))
    assert pattern is not None  # for the type checker: all of these are sparse
    return count, len(pattern.rows) / n, pattern.products


def main() -> None:
    torch.set_num_threads(1)
    table = Table("problem", "unknowns", "in a row", "found by", "colours", "steps", "products",
                  "seconds", "GMRES: products", "seconds")  # fmt: skip
    for name, options, sizes in CASES:
        problem = problems.get(name, **options)
        for n in sizes:
            count, per_row, colours = pattern_of(problem, n)
            sparse, seconds = min(
                (solved(problem, n, sparse=True) for _ in range(TIMED)), key=lambda pair: pair[1]
            )
            beside = ("", "")
            if n <= TRIED:
                krylov, krylov_seconds = solved(problem, n, sparse=False)
                products = f"{krylov.counts.jvps:,}" if krylov.converged else "–"
                beside = (products, f"{krylov_seconds:.2f}")
            table.add_row(
                name, f"{n:,}", f"{per_row:.1f}", str(count), str(colours),
                str(int(sparse.steps)) if sparse.converged else "–",
                f"{sparse.counts.jvps}", f"{seconds:.2f}",
                *beside,
            )  # fmt: skip
            print(name, n, flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
