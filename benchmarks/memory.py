"""Memory of a training step against the iterations of the solver, beside the unrolled network's.

Counted are the bytes of all distinct storages that autograd keeps between the forward and the backward
pass of `z = tanh(W z + x)`, parameters aside. The peak memory of the process is that of a fresh process
for each case; it includes PyTorch itself.

Run with `python benchmarks/memory.py`.
"""

from __future__ import annotations

import multiprocessing
import resource

import torch
from implicitly import Anderson, Exact, FixedPointIteration, Solver, Stopping, Unrolled, fixed_point
from rich.console import Console
from rich.table import Table
from torch import Tensor

BATCH, SIZE = 128, 512
FEW, MANY = 10, 200
CASES: dict[str, tuple[Solver, Exact | Unrolled]] = {
    "Anderson(), Exact()": (Anderson(), Exact(stopping=Stopping(rtol=1e-3))),
    "FixedPointIteration(), Exact()": (FixedPointIteration(), Exact(stopping=Stopping(rtol=1e-3))),
    "FixedPointIteration(), Unrolled()": (FixedPointIteration(), Unrolled()),
    "Anderson(), Unrolled()": (Anderson(), Unrolled()),
}


def training_step(case: str, steps: int) -> tuple[int, int]:
    """Bytes that autograd keeps, and the peak memory of the process in bytes."""
    solver, gradient = CASES[case]
    generator = torch.Generator().manual_seed(0)
    weight = 0.98 * torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator)).Q
    weight.requires_grad_()
    x = 0.3 * torch.randn(BATCH, SIZE, generator=generator)
    # A bound that no step meets: the solver makes all its steps.
    stopping = Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != weight.untyped_storage().data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = fixed_point(
            lambda z, weight, x: torch.tanh(torch.nn.functional.linear(z, weight) + x),
            torch.zeros_like(x), weight, x, solver=solver, stopping=stopping, gradient=gradient,
            batch_dims=1, on_failure="accept",
        ).value  # fmt: skip
        loss = z.square().sum()
    loss.backward()
    return sum(kept.values()), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_fresh_process(case: str, steps: int) -> tuple[int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(training_step, (case, steps))


def main() -> None:
    table = Table(title=f"A training step, B = {BATCH}, d = {SIZE}, float32, in MiB")
    table.add_column("solver and gradient")
    for column in (f"kept, {FEW} steps", f"{MANY} steps", "ratio", f"peak, {FEW}", f"{MANY}"):
        table.add_column(column, justify="right")
    for case in CASES:
        (few, few_peak), (many, many_peak) = (in_fresh_process(case, n) for n in (FEW, MANY))
        table.add_row(
            case, f"{few / 2**20:.2f}", f"{many / 2**20:.2f}", f"{many / few:.2f}",
            f"{few_peak / 2**20:.0f}", f"{many_peak / 2**20:.0f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
