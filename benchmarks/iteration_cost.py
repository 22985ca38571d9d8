"""The cost of one solver iteration beside torchdeq: operations, host synchronisations, time, memory.

Both libraries solve `z = tanh(W z + x)` from zero with the same memory (Anderson: five past moves,
which torchdeq counts as m = 6), in one process, in turn. The cost of an iteration is the difference
between two solves of different lengths that never meet their tolerance, less that of the map.

Run with `make bench`, or `python benchmarks/iteration_cost.py [--json FILE] [--threads N]`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from implicitly import Anderson, Broyden, Solver, Stopping, fixed_point
from implicitly.solvers import Problem, solve
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchdeq import get_deq
from torchdeq.solver import get_solver

SIZES = ((8, 256), (128, 512))
FEW, MANY = 10, 30
REPEATS = 15
SYNCHRONISING = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default")


@dataclass(frozen=True)
class Contender:
    """One solver of one library: runs a number of iterations, or to a tolerance."""

    solver: str
    library: str
    iterate: Callable[[Callable[[Tensor], Tensor], Tensor, int], object]
    reach: Callable[[Callable[[Tensor], Tensor], Tensor, float], int]


class Operations(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def synchronisations(self) -> int:
        return sum(self.counts[name] for name in SYNCHRONISING)


def ours(name: str, solver: Solver, check_every: int) -> Contender:
    def iterate(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> object:
        stopping = Stopping(
            rtol=0.0, atol=0.0, max_steps=steps, check_every=check_every, patience=10**6
        )
        return fixed_point(
            f, z, solver=solver, stopping=stopping, batch_dims=1, on_failure="accept"
        )

    def reach(f: Callable[[Tensor], Tensor], z: Tensor, rtol: float) -> int:
        stopping = Stopping(rtol=rtol, check_every=check_every)
        return fixed_point(f, z, solver=solver, stopping=stopping, batch_dims=1).evaluations

    return Contender(name, f"implicitly, check_every={check_every}", iterate, reach)


def torchdeq(name: str, options: dict[str, int]) -> Contender:
    solver = get_solver(name.lower())

    def iterate(f: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> object:
        return solver(f, z, max_iter=steps, tol=0.0, stop_mode="rel", **options)

    def reach(f: Callable[[Tensor], Tensor], z: Tensor, rtol: float) -> int:
        _, _, info = solver(f, z, max_iter=200, tol=rtol, stop_mode="rel", **options)
        return int(info["nstep"].max())

    return Contender(name, "torchdeq", iterate, reach)


def contenders() -> list[Contender]:
    anderson, broyden = Anderson(memory=5), Broyden(memory=50)
    return [
        ours("Anderson", anderson, 1),
        ours("Anderson", anderson, 10),
        torchdeq("Anderson", {"m": 6}),
        ours("Broyden", broyden, 1),
        ours("Broyden", broyden, 10),
        torchdeq("Broyden", {}),
    ]


def problem(batch: int, size: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    weight, x = weight_and_input(batch, size)
    return lambda z: torch.tanh(torch.nn.functional.linear(z, weight) + x), torch.zeros(batch, size)


def weight_and_input(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """A map whose iterations still make progress when they are counted: all singular values 0.98."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.98 * torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    return weight, 0.3 * torch.randn(batch, size, generator=generator)


def operations(contender: Contender, f: Any, z: Tensor) -> tuple[float, float]:
    """Dispatched operations per iteration beyond those of `f`, and host synchronisations."""
    with torch.no_grad():
        with Operations() as alone:
            f(z)
        counted = []
        for steps in (FEW, MANY):
            with Operations() as found:
                contender.iterate(f, z, steps)
            counted.append(found)
    steps = MANY - FEW
    per_step = (counted[1].total - counted[0].total) / steps - alone.total
    waits = (counted[1].synchronisations - counted[0].synchronisations) / steps
    return per_step, waits


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def times_per_iteration(several: list[Contender], f: Any, z: Tensor) -> list[float]:
    """Median time of an iteration beyond that of `f`'s own, for each contender, taken in turn."""
    taken: list[list[float]] = [[] for _ in several]
    with torch.no_grad():
        for repeat in range(REPEATS + 2):
            for times, contender in zip(taken, several, strict=True):
                short = seconds(lambda: contender.iterate(f, z, FEW))  # noqa: B023
                long = seconds(lambda: contender.iterate(f, z, MANY))  # noqa: B023
                if repeat >= 2:
                    times.append((long - short) / (MANY - FEW))
    return [statistics.median(times) for times in taken]


def times_to_tolerance(
    several: list[Contender], f: Any, z: Tensor, rtol: float
) -> list[tuple[int, float]]:
    """Evaluations and median time of a whole solve, for each contender, taken in turn."""
    taken: list[list[float]] = [[] for _ in several]
    with torch.no_grad():
        evaluations = [contender.reach(f, z, rtol) for contender in several]
        for _ in range(REPEATS):
            for times, contender in zip(taken, several, strict=True):
                times.append(seconds(lambda: contender.reach(f, z, rtol)))  # noqa: B023
    return list(zip(evaluations, map(statistics.median, taken), strict=True))


def broyden_state_bytes(limit: int, steps: int, f: Any, z: Tensor) -> int:
    """Bytes of the largest state of a Broyden solve of `steps` iterations with memory for `limit`."""
    largest = 0

    class Watched(Broyden):
        def step(self, problem: Problem, state: Any) -> Any:
            nonlocal largest
            state = super().step(problem, state)
            held = state.updates.nbytes
            largest = max(largest, held)
            return state

    stopping = Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6)
    with torch.no_grad():
        solve(Problem(f), Watched(memory=limit), z, stopping)
    return largest


def training_times(batch: int, size: int) -> tuple[float, float]:
    """Median times of a training step (value and exact gradient) by this package and by torchdeq."""
    weight, x = weight_and_input(batch, size)
    weight.requires_grad_()
    zero = torch.zeros(batch, size)
    deq = get_deq(
        f_solver="anderson", b_solver="anderson", f_max_iter=100, b_max_iter=100,
        f_tol=1e-5, b_tol=1e-5, f_stop_mode="rel", b_stop_mode="rel", ift=True,
    )  # fmt: skip
    stopping = Stopping(rtol=1e-5)

    def mine() -> None:
        z = fixed_point(
            lambda z, w, x: torch.tanh(torch.nn.functional.linear(z, w) + x),
            zero, weight, x, solver=Anderson(), stopping=stopping, batch_dims=1,
        ).value  # fmt: skip
        z.square().sum().backward()

    def theirs() -> None:
        def f(z: Tensor) -> Tensor:
            return torch.tanh(torch.nn.functional.linear(z, weight) + x)

        deq(f, zero)[0][-1].square().sum().backward()

    taken: tuple[list[float], list[float]] = ([], [])
    for repeat in range(REPEATS + 2):
        for times, run in zip(taken, (mine, theirs), strict=True):
            took = seconds(run)
            if repeat >= 2:
                times.append(took)
    return statistics.median(taken[0]), statistics.median(taken[1])


@dataclass(frozen=True)
class Row:
    """One contender on one problem."""

    batch: int
    size: int
    solver: str
    library: str
    operations: float
    synchronisations: float
    microseconds: float
    ratio: float
    evaluations: int
    solve_ms: float


def measure(batch: int, size: int) -> list[Row]:
    f, z = problem(batch, size)
    several = contenders()
    counted = [operations(contender, f, z) for contender in several]
    times = times_per_iteration(several, f, z)
    solves = times_to_tolerance(several, f, z, 1e-5)
    peer = {c.solver: t for c, t in zip(several, times, strict=True) if c.library == "torchdeq"}
    return [
        Row(
            batch, size, c.solver, c.library, ops, waits, 1e6 * t, t / peer[c.solver],
            evaluations, 1e3 * took,
        )
        for c, (ops, waits), t, (evaluations, took) in zip(
            several, counted, times, solves, strict=True
        )
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(f"torch {torch.__version__}, {options.threads} thread(s), float32")

    rows: list[Row] = []
    for batch, size in SIZES:
        table = Table(title=f"One iteration, B = {batch}, d = {size}")
        for column in ("solver", "library", "operations", "waits", "µs", "ratio", "solve"):
            table.add_column(column, justify="left" if column in ("solver", "library") else "right")
        for row in measure(batch, size):
            rows.append(row)
            table.add_row(
                row.solver, row.library, f"{row.operations:.1f}", f"{row.synchronisations:.2f}",
                f"{row.microseconds:.0f}", f"{row.ratio:.2f}",
                f"{row.evaluations} evaluations, {row.solve_ms:.1f} ms",
            )  # fmt: skip
        console.print(table)
        mine, theirs = training_times(batch, size)
        console.print(
            f"Training step (Anderson, exact gradient, 1e-5): {1e3 * mine:.1f} ms, "
            f"torchdeq {1e3 * theirs:.1f} ms, ratio {mine / theirs:.2f}\n"
        )
    console.print(
        "operations: dispatched per iteration beyond those of f; waits: host synchronisations per "
        "iteration;\nratio: time of an iteration, f included, over torchdeq's; solve: to rtol 1e-5."
    )

    f, z = problem(*SIZES[0])
    sizes = {
        (limit, steps): broyden_state_bytes(limit, steps, f, z)
        for limit in (50, 5000)
        for steps in (8, 32)
    }
    console.print("\nBroyden's storage, B = 8, d = 256:")
    for (limit, steps), size in sizes.items():
        console.print(f"  memory={limit}, {steps} iterations: {size / 2**20:.2f} MiB")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
