"""Newton–Krylov on large problems: time, Krylov iterations and memory against the number of unknowns.

Each case runs in a fresh process on one thread. The time is that of a solve to a relative residual of 1e-8,
the best of three, divided by its Newton steps; its growth is over that of n log n, from about 10⁴ unknowns,
where host work no longer counts. The set-up of the preconditioner, once for each size, is shown apart. The
memory is the growth of the process's peak over a solve of the smallest size, so it counts everything:
iterates, Krylov basis, graph, transforms, preconditioner.

Run with `python benchmarks/large_scale.py`; `--million` goes on to 10⁶ unknowns.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
from implicitly import GMRES, NewtonKrylov, Solution, Stopping, problems, root
from implicitly.problems import TestProblem
from rich.console import Console
from rich.table import Table

# Grids whose transforms have lengths with small factors only.
SQUARES = [m * m for m in (31, 55, 99, 175, 319)]
PAIRS = [2 * m * m for m in (24, 39, 71, 124, 224)]
LINES = [1_000, 3_000, 10_000, 30_000, 100_000]
CASES: list[tuple[str, dict[str, Any], list[int], int]] = [
    ("bratu", {"strength": 5.0}, SQUARES, 999**2),
    ("bratu", {"strength": 6.8}, SQUARES, 999**2),
    ("convection-diffusion", {}, SQUARES, 999**2),
    ("driven-cavity", {"reynolds": 100.0}, PAIRS, 2 * 719**2),
    ("broyden-tridiagonal", {}, LINES, 1_000_000),
]
REPEATS = 3


@dataclass(frozen=True)
class Measurement:
    """One size of one problem."""

    unknowns: int
    set_up: float
    seconds: float
    newton: int
    krylov: int
    memory: int
    solved: bool


def solve(problem: TestProblem, n: int) -> tuple[Solution, float, float]:
    """The solution, seconds for the preconditioner and seconds for the solve."""
    begin = time.perf_counter()
    linear = GMRES(restart=100, preconditioner=problem.preconditioner(n))
    ready = time.perf_counter()
    solution = root(
        problem.function, problem.start(n), *problem.args(n), solver=NewtonKrylov(linear_solver=linear),
        stopping=Stopping(rtol=1e-8), on_failure="accept",
    )  # fmt: skip
    return solution, ready - begin, time.perf_counter() - ready


def measure(name: str, parameters: dict[str, Any], smallest: int, n: int) -> Measurement:
    torch.set_num_threads(1)
    problem = problems.get(name, **parameters)
    solve(problem, smallest)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    solution, set_up, seconds = solve(problem, n)
    memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    for _ in range(REPEATS - 1):
        _, again, seconds_again = solve(problem, n)
        set_up, seconds = min(set_up, again), min(seconds, seconds_again)
    steps = int(solution.steps.max())
    iterations = solution.counts.linear_iterations
    return Measurement(
        n, set_up, seconds, steps, iterations, memory, bool(solution.converged.all())
    )


def in_fresh_process(*case: Any) -> Measurement:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, case)


def show(console: Console, title: str, measurements: list[Measurement]) -> None:
    table = Table(title=title)
    for column in (
        "unknowns", "Newton steps", "Krylov iterations", "ms per Newton step", "growth over n log n",
        "set-up, ms", "peak, MiB", "peak, numbers per unknown",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    base = measurements[2]
    for m in measurements:
        per_step = m.seconds / m.newton
        growth = per_step / (base.seconds / base.newton)
        growth /= m.unknowns * math.log(m.unknowns) / (base.unknowns * math.log(base.unknowns))
        table.add_row(
            f"{m.unknowns}", f"{m.newton}{'' if m.solved else ' (failed)'}", f"{m.krylov}",
            f"{1e3 * per_step:.1f}", f"{growth:.2f}", f"{1e3 * m.set_up:.1f}",
            f"{m.memory / 2**20:.1f}", f"{m.memory / m.unknowns / 8:.0f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true", help="go on to 10⁶ unknowns")
    million = parser.parse_args().million
    console = Console(width=140)
    for name, parameters, sizes, largest in CASES:
        listed = [*sizes, largest] if million else sizes
        title = ", ".join([name, *(f"{key} = {value:g}" for key, value in parameters.items())])
        found = [in_fresh_process(name, parameters, sizes[0], n) for n in listed]
        show(console, title, found)


if __name__ == "__main__":
    main()
