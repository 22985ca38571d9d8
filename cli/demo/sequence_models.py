"""Training of a DEQ-Transformer, beside the unrolled network with the same parameters."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich import box
from rich.console import Console
from rich.table import Table

from ...models.data import Corpus
from ...verification.saved import saved_bytes
from .baseline import unigram_bits

_LAYERS = 8


@dataclass(frozen=True)
class _Trained:
    """Result of training one model."""

    name: str
    parameters: int
    perplexity: float
    evaluations: float
    residual: float
    saved: int
    seconds: float


def train_sequence_models(
    console: Console,
    corpus: Corpus,
    characters: int,
    changes: tuple[str, ...],
    beats_counting: bool,
    seed: int,
) -> list[str]:
    """Train both models, and print their quality and cost.

    Args:
        console: Console to print to.
        corpus: The text.
        characters: Number of characters of the standard library.
        changes: To the configuration `demo`, for a smaller run.
        beats_counting: True if they must be better than counting characters; else, than chance.
        seed: Seed of both runs.

    Returns:
        Failures: models that learned too little.
    """
    changes = (*changes, f"data.characters={characters}", f"seed={seed}")
    unrolled = f"model.depth={{name: weight-tied, depth: {_LAYERS}}}"
    without = ("shallow={}", "jacobian={}", "monitor=0")
    trained = [
        _train("equilibrium", changes, console),
        _train(f"{_LAYERS} layers", (*changes, unrolled, *without), console),
    ]
    console.print(_table(trained))
    unigram = 2 ** unigram_bits(corpus.train, corpus.valid, len(corpus.vocabulary))
    console.print(
        f"Held-out perplexity of a character; {unigram:.1f} by counting characters. Memory: saved for the "
        "backward pass of one step.",
        style="dim",
    )
    limit, what = (unigram, "counting") if beats_counting else (len(corpus.vocabulary), "nothing")
    return [
        f"the {one.name} (perplexity {one.perplexity:.1f}) learned less than {what} ({limit:.1f})"
        for one in trained
        if not one.perplexity < limit
    ]


def _train(name: str, changes: tuple[str, ...], console: Console) -> _Trained:
    # Imported here because it is an extra.
    from ... import models
    from ...models import training
    from ...models.training.callbacks import TrainingProgress

    run = training.load("demo", changes)
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        bar = TrainingProgress(name, console)
        result = training.train(run, Path(folder), accelerator="cpu", callbacks=[bar])
    seconds = time.perf_counter() - start
    model = result.module.model
    data = run.data.open(run.batch, run.length, run.seed)
    found = training.evaluate(model, data.held_out("valid"))
    tokens, targets, _ = data.training(0)
    return _Trained(
        name=name,
        parameters=models.count_parameters(model).total,
        perplexity=math.exp(found.loss),
        evaluations=found.evaluations or float(_LAYERS),
        residual=found.residual,
        saved=saved_bytes(lambda: model.loss(tokens, targets)[0], model.parameters()),
        seconds=seconds / run.steps,
    )


def _table(trained: list[_Trained]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("Model")
    for heading in (
        "Parameters", "Perplexity", "Evalua-\ntions", "Resid-\nual", "Memory\n(MiB)", "Time\n(ms/step)",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for one in trained:
        table.add_row(
            one.name, f"{one.parameters:,}", f"{one.perplexity:.2f}", f"{one.evaluations:.0f}",
            f"{one.residual:.0e}" if one.residual else "–", f"{one.saved / 2**20:.1f}",
            f"{1e3 * one.seconds:.0f}",
        )  # fmt: skip
    return table
