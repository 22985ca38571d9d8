"""Course of the demonstration; it prints each step and counts failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ... import Anderson, SolveError, Stopping
from ...models.data import Corpus, CorpusError, standard_library
from ..extras import install_line, missing
from .baseline import bigram_bits, unigram_bits
from .checks import HeldOut, SolverReport, report_solver, study_memory, unrolled_gradients
from .figure import save_figure
from .network import EquilibriumNetwork
from .sequence_models import train_sequence_models
from .size import FAST, FULL, Size
from .small_study import small_study
from .solving import SOLVERS, spectral_radius
from .table import explanation, results_table
from .text import evenly_spaced, windows
from .training import train, validate


def run(output: Path, *, seed: int = 0, fast: bool = False, console: Console | None = None) -> int:
    """Run the demonstration.

    Args:
        output: Folder for the figure; it is created if missing.
        seed: Seed of the initial weights and all samples.
        fast: True to run the small version.
        console: Console to print to; `None` for standard output.

    Returns:
        The exit code: 0, or 1 if a check failed.
    """
    console = console or Console(highlight=False, emoji=False)
    size = FAST if fast else FULL
    start = time.perf_counter()
    draw = not missing("figures")
    if not draw:
        console.print(
            "No figure will be drawn, since matplotlib is missing. To get it:\n"
            f"  {install_line('figures')}",
            markup=False,
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        corpus = standard_library(size.characters)
        with _one_thread():
            failures = _demonstrate(
                console, size, corpus, output / "demo.png" if draw else None, seed
            )
            console.rule("3. Train a DEQ-Transformer beside the unrolled network", align="left")
            if not missing("models"):
                failures += train_sequence_models(
                    console, corpus, size.characters, size.trained, size.beats_pairs, seed
                )
            else:
                _left_out(console, "models")
        console.rule("4. Compare solvers in a small study", align="left")
        if not missing("studies"):
            failures += small_study(console, output / "study", size.studied)
        else:
            _left_out(console, "studies")
    except (OSError, CorpusError, SolveError) as error:
        console.print(f"Failed: {error}", style="bold red", markup=False)
        return 1
    seconds = time.perf_counter() - start
    for failure in failures:
        console.print(f"Failed: {failure}", style="bold red", markup=False)
    if failures:
        return 1
    console.print(f"All checks passed in {seconds:.0f} s.", style="bold green")
    return 0


def _left_out(console: Console, extra: str) -> None:
    console.print(
        f"Left out, since it needs {', '.join(missing(extra))}, not installed here. To get all:\n"
        f"  {install_line(extra)}",
        markup=False,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread while active; small matrices do not gain from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _demonstrate(
    console: Console, size: Size, corpus: Corpus, figure: Path | None, seed: int
) -> list[str]:
    console.rule("1. Fit an equilibrium network to the standard library", align="left")
    console.print(
        f"{len(corpus.train):,} characters to learn from, {len(corpus.valid):,} held out; "
        f"{len(corpus.vocabulary)} different ones."
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = EquilibriumNetwork(
            len(corpus.vocabulary),
            size.context,
            size.embedding,
            size.state,
            Stopping(rtol=1e-2, rtol_residual=1e-4),
        )
    failures = _fit(console, network, corpus, size, seed)

    console.rule("2. Solve and differentiate with four solvers, in float64", align="left")
    characters, following = windows(
        corpus.valid,
        evenly_spaced(corpus.valid, size.checked, size.context),
        size.context,
    )
    network = network.double().solved_by(Anderson(), Stopping())
    with torch.no_grad():
        batch = HeldOut(network.embed(characters), following)
    radius = spectral_radius(network, batch.embedded)
    console.print(
        f"{size.checked} held-out systems of {size.state} unknowns. Norm of the Jacobian ≤ "
        f"{network.cell.contraction():.2f}, spectral radius {radius:.2f}."
    )
    console.print(f"Unrolled networks of {size.depths[0]} to {size.depths[-1]} layers …")
    unrolled = list(unrolled_gradients(network, batch, size.depths))
    reports: list[SolverReport] = []
    for solver in SOLVERS:
        console.print(f"{type(solver).__name__}: solve, finite differences, memory …")
        report = report_solver(
            network,
            batch,
            solver,
            unrolled=unrolled,
            depths=size.depths,
            directions=size.directions,
            repeats=size.repeats,
            seed=seed,
        )
        failures += report.failures
        reports.append(report)

    console.print(results_table(reports))
    console.print(explanation(reports), style="dim", markup=False)
    study = reports[0].unrolled
    console.print(
        f"Each layer multiplies the distance to the unrolled gradient by {study.rate:.2f} "
        f"(spectral radius {radius:.2f})."
    )
    if figure is not None:
        save_figure(figure, reports, study_memory(network, batch, size.depths), radius)
        console.print(f"Figure: {figure}", markup=False, soft_wrap=True)
    return failures


def _fit(
    console: Console, network: EquilibriumNetwork, corpus: Corpus, size: Size, seed: int
) -> list[str]:
    symbols = len(corpus.vocabulary)
    unigram = unigram_bits(corpus.train, corpus.valid, symbols)
    bigram = bigram_bits(corpus.train, corpus.valid, symbols)
    columns = (
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    look_every = size.training_steps // 4
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=size.training_steps)
        for step in train(
            network,
            corpus.train,
            context=size.context,
            batch=size.batch,
            steps=size.training_steps,
            learning_rate=size.learning_rate,
            contraction=size.contraction,
            seed=seed,
        ):
            described = (
                f"loss {step.bits:.2f} bits, perplexity {step.perplexity:.1f}, "
                f"evaluations {step.evaluations}+{step.adjoint_evaluations}"
            )
            progress.update(task, advance=1, description=described)
            if step.step % look_every == 0:
                bits = _validate(network, corpus, size)
                progress.console.print(
                    f"step {step.step}: {bits:.2f} bits per held-out character, "
                    f"perplexity {2**bits:.1f}"
                )
    bits = _validate(network, corpus, size)
    console.print(
        f"Held-out bits per character: {unigram:.2f} by counting characters, {bigram:.2f} by "
        f"counting pairs, {bits:.2f} by the network."
    )
    yardstick, what = (bigram, "pairs") if size.beats_pairs else (unigram, "characters")
    if bits < yardstick:
        return []
    return [f"the network ({bits:.2f} bits) learned less than counting {what} ({yardstick:.2f})"]


def _validate(network: EquilibriumNetwork, corpus: Corpus, size: Size) -> float:
    return validate(network, corpus.valid, context=size.context, count=size.validation)
