"""The cost of one solver iteration beside torchdeq: operations, host reads, time, memory.

Both libraries solve `z = tanh(W z + x)` from zero with the same memory (Anderson: five past moves,
which torchdeq counts as m = 6), in one process, in turn. The cost of an iteration is the difference
between two solves of different lengths that never meet their tolerance.

Run with `make bench`, or `python benchmarks/iteration_cost.py [--json FILE] [--threads N]`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from implicitly import Anderson, Broyden, Exact, Solver, Stopping, fixed_point
from implicitly.solvers import Problem, solve
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchdeq import get_deq
from torchdeq.solver import get_solver

SIZES = ((8, 256), (128, 512))
FEW, MANY = 10, 30
TOLERANCE = 1e-5
READS = ("cpu", "item", "tolist", "__bool__", "__float__", "__int__", "nonzero", "equal")

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """One solver of one library: runs a number of iterations, or to a tolerance."""

    solver: str
    library: str
    iterate: Callable[[Map, Tensor, int], object]
    reach: Callable[[Map, Tensor], int]


@dataclass(frozen=True)
class Row:
    """One contender on one problem.

    Attributes:
        operations: Dispatched per iteration beyond those of the map.
        events: The same with the operations that operations call, as a profiler lists them.
        reads: Times that the host asks for values of tensors, per iteration.
        microseconds: Time of an iteration, with the map.
        ratio: That time over torchdeq's.
        ratio_beyond: The same after taking away the time of the map.
        evaluations: Of the map, to solve to `TOLERANCE`.
        solve_ms: Time of that solve.
    """

    batch: int
    size: int
    solver: str
    library: str
    operations: float
    events: float
    reads: float
    microseconds: float
    ratio: float
    ratio_beyond: float
    evaluations: int
    solve_ms: float


class Operations(TorchDispatchMode):
    """Counts the operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class HostReads(TorchFunctionMode):
    """Counts the calls that wait for values of a tensor; on a CPU some of them cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += getattr(func, "__name__", "") in READS
        return func(*args, **(kwargs or {}))


def ours(name: str, solver: Solver, check_every: int, how: str = "") -> Contender:
    def iterate(f: Map, z: Tensor, steps: int) -> object:
        stopping = Stopping(
            rtol=0.0, atol=0.0, max_steps=steps, check_every=check_every, patience=10**6
        )
        return fixed_point(
            f, z, solver=solver, stopping=stopping, batch_dims=1, on_failure="accept"
        )

    def reach(f: Map, z: Tensor) -> int:
        stopping = Stopping(rtol=TOLERANCE, check_every=check_every)
        return fixed_point(f, z, solver=solver, stopping=stopping, batch_dims=1).evaluations

    return Contender(name, f"implicitly, every {check_every}{how}", iterate, reach)


def torchdeq(name: str, options: dict[str, int]) -> Contender:
    solver = get_solver(name.lower())

    def iterate(f: Map, z: Tensor, steps: int) -> object:
        return solver(f, z, max_iter=steps, tol=0.0, stop_mode="rel", **options)

    def reach(f: Map, z: Tensor) -> int:
        _, _, info = solver(f, z, max_iter=200, tol=TOLERANCE, stop_mode="rel", **options)
        return int(info["nstep"].max())

    return Contender(name, "torchdeq", iterate, reach)


def contenders() -> list[Contender]:
    several = []
    for name, solver, options in (
        ("Anderson", Anderson(memory=5), {"m": 6}),
        ("Broyden", Broyden(), {}),
    ):
        several += [ours(name, solver, check_every) for check_every in (1, 4, 10)]
        compiled = replace(solver, compiled=True)
        several.append(ours(name, compiled, 1, ", compiled"))
        several.append(torchdeq(name, options))
    return several


def weight_and_input(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """A map whose iterations still make progress when they are counted: all singular values 0.98."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.98 * torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    return weight, 0.3 * torch.randn(batch, size, generator=generator)


def equation(batch: int, size: int) -> tuple[Map, Tensor]:
    weight, x = weight_and_input(batch, size)
    return lambda z: torch.tanh(torch.nn.functional.linear(z, weight) + x), torch.zeros(batch, size)


def dispatched(run: Callable[[], object]) -> int:
    with Operations() as found:
        run()
    return found.count


def host_reads(run: Callable[[], object]) -> int:
    with HostReads() as found:
        run()
    return found.count


def profiled(run: Callable[[], object]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    names = Counter(event.name for event in profile.events())
    return sum(count for name, count in names.items() if name.startswith("aten::"))


def per_iteration(
    count: Callable[[Callable[[], object]], int], contender: Contender, f: Map, z: Tensor
) -> float:
    """What `count` finds in an iteration beyond the map."""
    few = count(lambda: contender.iterate(f, z, FEW))
    many = count(lambda: contender.iterate(f, z, MANY))
    return (many - few) / (MANY - FEW) - count(lambda: f(z))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(runs: list[Callable[[], float]], repeats: int) -> list[list[float]]:
    """What each run gives, in rounds through all of them, after two rounds to warm up."""
    taken: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 2):
        for found, run in zip(taken, runs, strict=True):
            value = run()
            if repeat >= 2:
                found.append(value)
    return taken


def median_ratio(these: list[float], those: list[float]) -> float:
    """Of pairs taken in the same round, so that what else the machine does cancels."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def measure(batch: int, size: int, repeats: int) -> list[Row]:
    f, z = equation(batch, size)
    several = contenders()

    def iteration(contender: Contender) -> float:
        short = seconds(lambda: contender.iterate(f, z, FEW))
        return (seconds(lambda: contender.iterate(f, z, MANY)) - short) / (MANY - FEW)

    def whole(contender: Contender) -> float:
        return seconds(lambda: contender.reach(f, z))

    def of_map() -> float:
        return seconds(lambda: [f(z) for _ in range(MANY)]) / MANY

    with torch.no_grad():
        alone, *times = in_turn([of_map, *(partial(iteration, c) for c in several)], repeats)
        solves = in_turn([partial(whole, c) for c in several], repeats)
        peers = {
            c.solver: t for c, t in zip(several, times, strict=True) if c.library == "torchdeq"
        }
        map_time = statistics.median(alone)
        return [
            Row(
                batch,
                size,
                c.solver,
                c.library,
                operations=per_iteration(dispatched, c, f, z),
                events=per_iteration(profiled, c, f, z),
                reads=per_iteration(host_reads, c, f, z),
                microseconds=1e6 * statistics.median(taken),
                ratio=median_ratio(taken, peers[c.solver]),
                ratio_beyond=(statistics.median(taken) - map_time)
                / (statistics.median(peers[c.solver]) - map_time),
                evaluations=c.reach(f, z),
                solve_ms=1e3 * statistics.median(solve),
            )
            for c, taken, solve in zip(several, times, solves, strict=True)
        ]


def training_ratio(batch: int, size: int, repeats: int) -> tuple[float, float, float]:
    """Milliseconds of a training step (value and exact gradient), torchdeq's, and the ratio."""
    weight, x = weight_and_input(batch, size)
    weight.requires_grad_()
    zero = torch.zeros(batch, size)
    deq = get_deq(
        f_solver="anderson", b_solver="anderson", f_max_iter=200, b_max_iter=200,
        f_tol=TOLERANCE, b_tol=TOLERANCE, f_stop_mode="rel", b_stop_mode="rel", ift=True,
    )  # fmt: skip
    stopping = Stopping(rtol=TOLERANCE)

    def mine() -> None:
        z = fixed_point(
            lambda z, w, x: torch.tanh(torch.nn.functional.linear(z, w) + x),
            zero, weight, x, solver=Anderson(), stopping=stopping, batch_dims=1,
            gradient=Exact(stopping=stopping),
        ).value  # fmt: skip
        z.square().sum().backward()

    def theirs() -> None:
        def f(z: Tensor) -> Tensor:
            return torch.tanh(torch.nn.functional.linear(z, weight) + x)

        deq(f, zero)[0][-1].square().sum().backward()

    here, there = in_turn([lambda: seconds(mine), lambda: seconds(theirs)], repeats)
    return (
        1e3 * statistics.median(here),
        1e3 * statistics.median(there),
        median_ratio(here, there),
    )


def broyden_bytes(limit: int, steps: int, f: Map, z: Tensor) -> int:
    """Bytes of the updates that Broyden holds after `steps` iterations, with room for `limit`."""
    held = 0

    class Watched(Broyden):
        def step(self, problem: Problem, state: Any) -> Any:
            nonlocal held
            state = super().step(problem, state)
            held = state.updates.nbytes
            return state

    stopping = Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6)
    with torch.no_grad():
        solve(Problem(f), Watched(memory=limit), z, stopping)
    return held


def table_of(rows: list[Row]) -> Table:
    table = Table(title=f"One iteration, B = {rows[0].batch}, d = {rows[0].size}")
    for column in ("solver", "library"):
        table.add_column(column)
    for column in ("ops", "events", "reads", "µs", "ratio", "beyond f", "evals", "solve ms"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.solver, row.library, f"{row.operations:.1f}", f"{row.events:.0f}",
            f"{row.reads:.2f}", f"{row.microseconds:.0f}", f"{row.ratio:.2f}",
            f"{row.ratio_beyond:.2f}", str(row.evaluations), f"{row.solve_ms:.1f}",
        )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of timing (default 15)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(f"torch {torch.__version__}, {options.threads} thread(s), float32")

    rows: list[Row] = []
    for batch, size in SIZES:
        found = measure(batch, size, options.repeats)
        rows += found
        console.print(table_of(found))
        mine, theirs, ratio = training_ratio(batch, size, options.repeats)
        console.print(
            f"Training step (Anderson, exact gradient, {TOLERANCE:g}): {mine:.1f} ms, "
            f"torchdeq {theirs:.1f} ms, ratio {ratio:.2f}\n"
        )
    console.print(
        "every k: the host looks at the residuals every k iterations. ops: operations dispatched per "
        "iteration beyond those of f; events: those and the operations that they call, as a profiler "
        "lists them; reads: reads of tensor values by the host per iteration; ratio: time of an "
        "iteration over torchdeq's, the map included, and beyond f; evals: to solve to "
        f"{TOLERANCE:g}."
    )

    f, z = equation(*SIZES[0])
    console.print("\nUpdates that Broyden holds, B = 8, d = 256:")
    for limit in (50, 5000):
        for steps in (8, 32):
            held = broyden_bytes(limit, steps, f, z) / 2**20
            console.print(f"  memory={limit}, {steps} iterations: {held:.2f} MiB")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
