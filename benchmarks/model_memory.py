"""What a training step of a model holds in memory, beside the weight-tied network of 16 layers.

Three measures, parameters aside:

* states: bytes of all distinct storages that autograd keeps for the states between the passes, without the
  vocabulary's loss (the paper leaves embeddings out);
* with the loss: the same with it;
* peak: the largest sum of all memory that is allocated at a time in the whole step, forward, backward, solves
  and the gradients of parameters included, as PyTorch's profiler sees every allocation.

The equilibrium makes exactly as many iterations in each pass as its row says; the rows of layers are steps on
a few layers, as in warming up. Each step is the second of a process of its own.

Run with `python benchmarks/model_memory.py`.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch
from implicitly import GMRES, Exact, PrefixAnderson, Solver, Stopping
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
from torch.profiler import ProfilerActivity, profile

BATCH, LENGTH, VOCABULARY = 15, 150, 1000


def fixed(
    forward: int,
    backward: int,
    solver: Solver | None = None,
    *,
    moves: int = 3,
    subsequence: int | None = None,
) -> Equilibrium:
    """An equilibrium with exactly so many iterations in each pass, and past moves that a solver keeps."""

    def rule(steps: int) -> Stopping:
        return Stopping(rtol=0.0, atol=0.0, max_steps=steps, patience=10**6)

    own = PrefixAnderson(memory=moves)
    return Equilibrium(
        own,
        rule(forward),
        Exact(solver=solver or own, stopping=rule(backward)),
        subsequence=subsequence,
        on_failure="accept",
    )


# Depths, and the number of layers in their place.
DEPTHS: dict[str, tuple[Any, int | None]] = {
    "weight-tied, 16 layers": (WeightTied(16), None),
    "the same, checkpointed": (WeightTied(16, checkpoint=True), None),
    "equilibrium, 10 and 10 iterations": (fixed(10, 10), None),
    "equilibrium, 100 and 10": (fixed(100, 10), None),
    "equilibrium, 10 and 100": (fixed(10, 100), None),
    "the first with two moves": (fixed(10, 10, moves=2), None),
    "the first with one move": (fixed(10, 10, moves=1), None),
    "the first in pieces of 50": (fixed(10, 10, subsequence=50), None),
    "the first with GMRES": (fixed(10, 10, GMRES()), None),
    "equilibrium, as 2 layers": (fixed(10, 10), 2),
    "equilibrium, as 8 layers": (fixed(10, 10), 8),
    "weight-tied, 1 layer": (WeightTied(1), None),
}


def make(kind: str, depth: Any) -> SequenceModel:
    if kind == "Transformer":
        return Transformer(
            TransformerOptions(VOCABULARY, width=128, heads=4, inner=512, memory=150, depth=depth)
        )
    return TrellisNet(TrellisNetOptions(VOCABULARY, output=64, hidden=128, depth=depth))


def kept_bytes(model: SequenceModel, tokens: Tensor, layers: int | None) -> tuple[int, int]:
    """Bytes kept in all, and those kept for the states."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held here as well, so that its address is not used again.
            kept[storage.data_ptr()] = (tensor.detach(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(tokens, depth=layers)
        states = sum(size for _, size in kept.values())
        model.vocabulary.losses(output.hidden, tokens).mean()
    return sum(size for _, size in kept.values()), states


def peak_bytes(model: SequenceModel, tokens: Tensor, layers: int | None) -> int:
    """The most bytes that a step has allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model.loss(tokens, tokens, depth=layers)[0].backward()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def training_step(kind: str, depth: str) -> tuple[int, int, int]:
    """Bytes kept in all, those kept for the states, and the peak of a step."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    how, layers = DEPTHS[depth]
    model = make(kind, how)
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH))
    kept = kept_bytes(model, tokens, layers)
    return *kept, peak_bytes(model, tokens, layers)


def in_fresh_process(kind: str, depth: str) -> tuple[int, int, int]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(training_step, (kind, depth))


def main() -> None:
    table = Table(title=f"A training step, batch {BATCH}, length {LENGTH}, float32, in MiB")
    columns = ("model", "depth", "states", "less by", "with the loss", "less by", "peak", "less by")
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "depth") else "right")
    for kind in ("Transformer", "TrellisNet"):
        first: tuple[int, int, int] | None = None
        for depth in DEPTHS:
            found = in_fresh_process(kind, depth)
            first = first or found
            entries = [
                text
                for size, whole in zip(found, first, strict=True)
                for text in (f"{size / 2**20:.1f}", f"{1 - size / whole:.1%}")
            ]
            table.add_row(kind, depth, *entries[2:4], *entries[:2], *entries[4:])
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
