"""Evaluation of a trained model on held-out text, at several tolerances and limits on iterations."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ...solvers import Stopping
from ..depth import Equilibrium, Stacked
from ..memory import Memory
from ..sequence_model import SequenceModel
from .data import Batch
from .tally import forward_work


@dataclass(frozen=True)
class Evaluation:
    """Quality of a model on some text, and its cost.

    Attributes:
        loss: Mean negative log-probability of a token, in nats.
        tokens: Number of predicted tokens.
        evaluations: Evaluations of the cell, the mean over batches.
        residual: Root mean square of `f(z) − z`, the mean over tokens; 0 at a finite depth.
        unsolved: Share of systems that have not converged.
        seconds: Total time.

    Examples:
        >>> Evaluation(0.0, 10, 5.0, 0.0, 0.0, 1.0).perplexity
        1.0
    """

    loss: float
    tokens: int
    evaluations: float
    residual: float
    unsolved: float
    seconds: float

    @property
    def perplexity(self) -> float:
        """Perplexity, `exp(loss)`."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


@torch.no_grad()
def evaluate(
    model: SequenceModel,
    batches: Iterable[Batch],
    *,
    depth: int | None = None,
    keep: int | None = None,
) -> Evaluation:
    """Evaluate a model on batches in their order, without dropout.

    Args:
        model: The model, on the device to run on.
        batches: Batches in their order; memory passes from each to the next.
        depth: Number of layers in place of the model's depth.
        keep: Positions to remember; `None` for those of the model's options.

    Raises:
        ValueError: There are no batches.

    Examples:
        >>> from implicitly.models import Transformer, TransformerOptions, WeightTied
        >>> from implicitly.models.training import CopyMemoryTask
        >>> model = Transformer(TransformerOptions(10, width=8, heads=2, depth=WeightTied(2)))
        >>> data = CopyMemoryTask(5, training=4, test=6).open(batch=3, length=1, seed=0)
        >>> evaluate(model, data.held_out("test")).tokens
        150
    """
    device = next(model.parameters()).device
    was_training, start = model.training, time.perf_counter()
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    tokens = count = 0
    sums = {"evaluations": 0.0, "residual": 0.0, "unsolved": 0.0}
    memory: Memory | None = None
    try:
        for batch in batches:
            memory = None if batch.first else memory
            losses, output = model.losses(
                batch.tokens.to(device), batch.targets.to(device), memory, depth=depth, keep=keep
            )
            memory, size = output.memory, batch.tokens.numel()
            loss += losses.double().sum()
            tokens, count = tokens + size, count + 1
            work = forward_work(output)
            sums["evaluations"] += work.get("forward evaluations", float(depth or 0))
            sums["residual"] += size * work.get("forward residual", 0.0)
            sums["unsolved"] += size * work.get("forward unsolved", 0.0)
    finally:
        model.train(was_training)
    if not count:
        raise ValueError("batches must be at least one, got none")
    return Evaluation(
        loss=float(loss) / tokens,
        tokens=tokens,
        evaluations=sums["evaluations"] / count,
        residual=sums["residual"] / tokens,
        unsolved=sums["unsolved"] / tokens,
        seconds=time.perf_counter() - start,
    )


def sweep(
    model: SequenceModel,
    batches: Sequence[Batch],
    *,
    tolerances: Sequence[float] = (),
    limits: Sequence[int] = (),
    most: int = 200,
    keep: int | None = None,
) -> Iterator[tuple[str, float, Evaluation]]:
    """Evaluations at several relative tolerances, and at several limits on the iterations.

    A network of a finite depth has no tolerance; its limit is the number of layers.

    Args:
        model: A model whose layers are not stacked.
        batches: See `evaluate`.
        tolerances: Relative tolerances, each with up to `most` iterations.
        limits: Limits on iterations, each with a tolerance of 0.
        most: Limit on iterations for the tolerances.
        keep: See `evaluate`.

    Yields:
        `"tolerance"` or `"limit"`, its value, and the evaluation.

    Raises:
        TypeError: The layers of the model are stacked, or it has no tolerance.

    Examples:
        >>> from implicitly.models import Transformer, TransformerOptions
        >>> from implicitly.models.training import CopyMemoryTask
        >>> model = Transformer(TransformerOptions(10, width=8, heads=2))
        >>> data = list(CopyMemoryTask(5, training=4, test=6).open(3, 1, 0).held_out("test"))
        >>> [(kind, value) for kind, value, _ in sweep(model, data, limits=[2, 4])]
        [('limit', 2), ('limit', 4)]
    """
    own = model.depth
    if isinstance(own, Stacked):
        raise TypeError("stacked layers have neither a tolerance nor another depth")
    if not isinstance(own, Equilibrium):
        if tolerances:
            raise TypeError(f"a finite depth has no tolerance: leave tolerances out, got {own!r}")
        for limit in limits:
            yield "limit", limit, evaluate(model, batches, depth=limit, keep=keep)
        return
    settings = [("tolerance", t, Stopping(rtol_residual=t, max_steps=most)) for t in tolerances]
    settings += [("limit", n, Stopping(rtol=0.0, atol=0.0, max_steps=n)) for n in limits]
    try:
        for kind, value, stopping in settings:
            model.depth = replace(own, stopping=stopping, on_failure="accept")
            yield kind, value, evaluate(model, batches, keep=keep)
    finally:
        model.depth = own
