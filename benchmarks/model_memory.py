"""What a training step of a model holds in memory, beside the weight-tied network of 16 layers.

Counted are the bytes of all distinct storages that autograd keeps between the forward and the backward pass,
parameters aside: all of them, and those of the states alone, without the vocabulary's loss (the paper
leaves embeddings out). The equilibrium makes exactly as many iterations as its row says. The peak memory
is that of a fresh process, and includes PyTorch itself.

Run with `python benchmarks/model_memory.py`.
"""

from __future__ import annotations

import multiprocessing
import resource
from typing import Any

import torch
from implicitly import Exact, Stopping
from implicitly.models import (
    Equilibrium,
    SequenceModel,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor

BATCH, LENGTH, VOCABULARY = 15, 150, 1000


def fixed(steps: int) -> Equilibrium:
    """An equilibrium with exactly `steps` iterations; its adjoint is solved to a tolerance."""
    return Equilibrium(
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6),
        gradient=Exact(stopping=Stopping(rtol=1e-2, max_steps=30)),
        on_failure="accept",
    )


DEPTHS = {
    "weight-tied, 16 layers": WeightTied(16),
    "equilibrium, 10 iterations": fixed(10),
    "equilibrium, 200 iterations": fixed(200),
}


def make(kind: str, depth: Any) -> SequenceModel:
    if kind == "Transformer":
        return Transformer(
            TransformerOptions(VOCABULARY, width=128, heads=4, inner=512, memory=150, depth=depth)
        )
    return TrellisNet(TrellisNetOptions(VOCABULARY, output=64, hidden=128, depth=depth))


def training_step(kind: str, depth: str) -> tuple[int, int, int]:
    """Bytes kept in all, those kept for the states, and the peak memory of the process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = make(kind, DEPTHS[depth])
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held here as well, so that its address is not used again.
            kept[storage.data_ptr()] = (tensor.detach(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(tokens)
        states = sum(size for _, size in kept.values())
        loss = model.vocabulary.losses(output.hidden, tokens).mean()
    total = sum(size for _, size in kept.values())
    loss.backward()
    return total, states, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_fresh_process(kind: str, depth: str) -> tuple[int, int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(training_step, (kind, depth))


def main() -> None:
    table = Table(title=f"A training step, batch {BATCH}, length {LENGTH}, float32, in MiB")
    for column in ("model", "depth", "states", "less by", "with the loss", "less by", "peak"):
        table.add_column(column, justify="left" if column in ("model", "depth") else "right")
    for kind in ("Transformer", "TrellisNet"):
        first: tuple[int, int] | None = None
        for depth in DEPTHS:
            total, states, peak = in_fresh_process(kind, depth)
            first = first or (total, states)
            table.add_row(
                kind, depth, f"{states / 2**20:.1f}", f"{1 - states / first[1]:.1%}",
                f"{total / 2**20:.1f}", f"{1 - total / first[0]:.1%}", f"{peak / 2**20:.0f}",
            )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
