"""Solves and gradients beside a loop written by hand, TorchDEQ, JAX, JAXopt and Optimistix, in one process.

Every contender solves `z = f(z, x)` to a relative residual of 1e-6 in each system, and differentiates the
sum of squares of the solution in the input and in the weights. Calls are interleaved, on one core, and the
residual of every answer is evaluated again in float64: a contender that stops earlier is shown with what it
has reached. Times are those of the processor, so that other processes on the machine count little. Libraries
that are not installed are left out.

Run from the root: python benchmarks/side_by_side.py [--cases tanh-64x1 ...] [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})

import numpy as np
import torch
from cells import (
    MLP,
    TOLERANCE,
    Attention,
    Case,
    Contender,
    Tanh,
    jax_attention,
    jax_mlp,
    jax_tanh,
    weights_of,
)
from implicitly import (
    Anderson,
    Broyden,
    Compiled,
    Exact,
    FixedPointIteration,
    ImplicitLayer,
    NeumannSeries,
    Newton,
    Solver,
    root,
)
from peers_beside import jax_loop, jaxopt, optimistix, torchdeq
from torch import Tensor

# A call is repeated until a round has lasted so many seconds.
ROUND = 0.004


def by_hand(case: Case) -> Contender:
    """A loop written by hand: one evaluation a step, plain iteration in both passes."""
    cell, x = case.cell, case.x
    leaf = x.clone().requires_grad_()

    def norms(rows: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows.flatten(1), dim=1)

    def solve() -> Tensor:
        with torch.no_grad():
            z = torch.zeros_like(x)
            while True:
                following = cell(z, x)
                if bool((norms(following - z) <= TOLERANCE * norms(z)).all()):
                    return z
                z = following

    def gradient() -> Tensor:
        z = solve().requires_grad_()
        value = cell(z, leaf)
        right = 2 * z.detach()
        u = right
        while True:
            (product,) = torch.autograd.grad(value, z, u, retain_graph=True)
            following = product + right
            if bool((norms(following - u) <= TOLERANCE * norms(right)).all()):
                break
            u = following
        torch.autograd.grad(value, [leaf, *weights_of(cell)], u)
        return z

    return Contender("by hand", solve, gradient)


def ours(name: str, case: Case, solver: Solver | None, adjoint: Solver | None) -> Contender:
    layer = ImplicitLayer(
        case.cell, solver=solver, gradient=None if adjoint is None else Exact(solver=adjoint)
    )
    leaf = case.x.clone().requires_grad_()

    def solve() -> Tensor:
        with torch.no_grad():
            value: Tensor = layer(case.x)
            return value

    def gradient() -> Tensor:
        z: Tensor = layer(leaf)
        torch.autograd.grad(z.square().sum(), [leaf, *weights_of(case.cell)])
        return z

    return Contender(name, solve, gradient)


def cases() -> dict[str, Callable[[], Case]]:
    def tanh(batch: int, size: int, rate: float) -> Callable[[], Case]:
        name = f"tanh-{size}x{batch}" + ("" if rate == 0.5 else f"-rate-{rate}")
        return lambda: Case(name, Tanh(size, rate), torch.randn(batch, size), jax_tanh)

    found = {
        f"tanh-{size}x{batch}": tanh(batch, size, 0.5)
        for size, batch in ((64, 1), (64, 128), (512, 128))
    }
    found |= {f"tanh-64x128-rate-{rate}": tanh(128, 64, rate) for rate in (0.9, 0.99)}
    found["mlp-64x128"] = lambda: Case("mlp-64x128", MLP(64), torch.randn(128, 64), jax_mlp)
    found["attention-64x32"] = lambda: Case(
        "attention-64x32", Attention(32), torch.randn(1, 64, 32), jax_attention
    )
    return found


def contenders(case: Case) -> list[Contender]:
    plain, series = FixedPointIteration(), NeumannSeries()
    several: list[Callable[[], Contender]] = [
        lambda: by_hand(case),
        lambda: ours("default", case, None, None),
        lambda: ours("Compiled, plain and Neumann", case, Compiled(plain), Compiled(series)),
        lambda: ours(
            "Compiled, Anderson and Neumann", case, Compiled(Anderson()), Compiled(series)
        ),
        lambda: ours("Compiled, Broyden and Neumann", case, Compiled(Broyden()), Compiled(series)),
        lambda: torchdeq(case),
        lambda: jax_loop(case),
        lambda: jaxopt(case),
        lambda: optimistix(case),
    ]
    made = []
    for make in several:
        try:
            made.append(make())
        except ModuleNotFoundError as error:
            print(f"{case.name}: left out, {error}")
    return made


def reached(case: Case, answer: Any) -> float:
    """The largest relative residual of a system, in float64."""
    z = torch.from_numpy(np.array(answer.detach() if isinstance(answer, Tensor) else answer))
    z = z.double()
    cell, x = case.cell.double(), case.x.double()
    with torch.no_grad():
        residual = (cell(z, x) - z).flatten(1)
    case.cell.float()
    size = torch.linalg.vector_norm(z.flatten(1), dim=1)
    return float((torch.linalg.vector_norm(residual, dim=1) / size).max())


def measured(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each call in each round, interleaved."""
    repeats = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        start = time.process_time()
        call()
        repeats[name] = max(int(ROUND / (time.process_time() - start)), 1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            times[name].append(1e3 * (time.process_time() - start) / repeats[name])
    gc.enable()
    return times


def run(case: Case, rounds: int) -> list[dict[str, Any]]:
    several = contenders(case)
    first: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    for one in several:
        start = time.perf_counter()
        answer = one.solve()
        if one.gradient is not None:
            one.gradient()
        first[one.name] = time.perf_counter() - start
        rows[one.name] = {
            "case": case.name,
            "contender": one.name,
            "residual": reached(case, answer),
        }
    for kind in ("solve", "gradient"):
        calls = {c.name: getattr(c, kind) for c in several if getattr(c, kind) is not None}
        for name, times in measured(calls, rounds).items():
            rows[name][f"{kind}_min"] = min(times)
            rows[name][f"{kind}_median"] = float(np.median(times))
    for name, row in rows.items():
        row["first_s"] = first[name]
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    hand = next(row for row in rows if row["contender"] == "by hand")
    lines = [
        f"| {rows[0]['case']} | solve, CPU ms | of by hand | solve and gradient, CPU ms | of by hand "
        "| residual | first, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = [row["contender"]]
        for kind in ("solve", "gradient"):
            least = row.get(f"{kind}_min")
            if least is None:
                parts += ["–", "–"]
                continue
            parts.append(f"{least:.3f} ({row[f'{kind}_median']:.3f})")
            parts.append(f"{least / hand[f'{kind}_min']:.2f}")
        lines.append(
            "| " + " | ".join([*parts, f"{row['residual']:.1e}", f"{row['first_s']:.1f}"]) + " |"
        )
    return "\n".join(lines)


def small_systems(rounds: int) -> list[dict[str, Any]]:
    """Newton's method on 4096 systems of three unknowns, the arctangent pulled by its neighbours."""
    torch.manual_seed(0)
    coupling = 0.3 * torch.randn(3, 3)
    x = torch.randn(4096, 3)

    def F(z: Tensor, x: Tensor) -> Tensor:
        return z + torch.atan(z @ coupling.mT) - x

    rows = []
    solvers: dict[str, Solver] = {"Newton": Newton(), "Compiled, Newton": Compiled(Newton())}

    def call(solver: Solver) -> Callable[[], Any]:
        return lambda: root(F, torch.zeros_like(x), x, solver=solver, batch_dims=1).value

    calls = {name: call(solver) for name, solver in solvers.items()}
    first = {}
    for name, solved in calls.items():
        start = time.perf_counter()
        value = solved()
        first[name] = time.perf_counter() - start
        error = float(F(value, x).abs().max())
        rows.append(
            {"case": "newton-3x4096", "contender": name, "residual": error, "first_s": first[name]}
        )
    for row, times in zip(rows, measured(calls, rounds).values(), strict=True):
        row["solve_min"], row["solve_median"] = min(times), float(np.median(times))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = cases()
    parser.add_argument("--cases", nargs="*", default=[*known, "newton-3x4096"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one core; "
        "minima (medians)\n"
    )
    everything = []
    for name in options.cases:
        torch.manual_seed(0)
        if name == "newton-3x4096":
            rows = small_systems(options.rounds)
            for row in rows:
                print(
                    f"{row['case']}: {row['contender']}: {row['solve_min']:.3f} ms "
                    f"({row['solve_median']:.3f})"
                )
        else:
            rows = run(known[name](), options.rounds)
            print(table(rows), "\n", flush=True)
        everything += rows
        if options.json:
            options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
