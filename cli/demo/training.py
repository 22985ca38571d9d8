"""Training of the network, as a stream of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .network import EquilibriumNetwork
from .text import evenly_spaced, windows


@dataclass(frozen=True)
class TrainingStep:
    """One step of training.

    Attributes:
        step: Its number, from 1.
        bits: Bits per character on its batch.
        evaluations: Evaluations of the cell that its forward solve took.
        adjoint_evaluations: Products with the transposed Jacobian that its adjoint solve took.
    """

    step: int
    bits: float
    evaluations: int
    adjoint_evaluations: int

    @property
    def perplexity(self) -> float:
        return 2.0**self.bits


def train(
    network: EquilibriumNetwork,
    text: Tensor,
    *,
    context: int,
    batch: int,
    steps: int,
    learning_rate: float,
    contraction: float,
    seed: int,
) -> Iterator[TrainingStep]:
    """Fit `network` to `text` with Adam, with a projection of the cell after every step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps
    )
    for step in range(1, steps + 1):
        starts = torch.randint(0, len(text) - context, (batch,), generator=generator)
        characters, following = windows(text, starts, context)
        loss = torch.nn.functional.cross_entropy(network(characters), following)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        network.cell.project(contraction)
        solution = network.equilibrium.solution
        assert solution is not None  # for the type checker: the layer has been called
        adjoint = solution.adjoints[0].evaluations
        yield TrainingStep(step, _in_bits(loss), solution.evaluations, adjoint)


@torch.no_grad()
def validate(network: EquilibriumNetwork, text: Tensor, *, context: int, count: int) -> float:
    """Bits per character on `count` windows spread over `text`."""
    characters, following = windows(text, evenly_spaced(text, count, context), context)
    return _in_bits(torch.nn.functional.cross_entropy(network(characters), following))


def _in_bits(nats: Tensor) -> float:
    return float(nats.detach()) / math.log(2)
