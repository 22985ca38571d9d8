"""Sequence models at equilibrium beside unrolled networks: a table, the paper's figures 2 to 4, generation.

    python docs/results/sequence_models.py language --data FOLDER   a table of perplexities, 3 seeds
    python docs/results/sequence_models.py figure2 --data FOLDER    evaluations over training; stability
    python docs/results/sequence_models.py figure3 --data FOLDER    perplexity against tolerance and limit
    python docs/results/sequence_models.py figure4 --data FOLDER    convergence of intermediate activations
    python docs/results/sequence_models.py generation --data FOLDER evaluations of one token at a time

FOLDER holds `tinyshakespeare` and `ptb`. Every run is kept in build/runs/sequence-models and goes on where it
was stopped; the figures use those of the table and make what is missing. Data go to
docs/results/sequence_models, figures to docs/figures. A run takes some minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from implicitly import Exact, FixedPointIteration, Stopping
from implicitly.models import Equilibrium, SequenceModel, count_parameters
from implicitly.models.training import (
    Batch,
    TrainingConfiguration,
    evaluate,
    latest,
    load,
    records,
    restore,
    sweep,
    train,
)
from implicitly.verification.saved import saved_bytes
from lightning.pytorch import Callback

HERE = Path(__file__).parent
DATA, FIGURES = HERE / "sequence_models", HERE.parent / "figures"
RUNS = Path("build/runs/sequence-models")
SEEDS = (0, 1, 2)
UNROLLED = (
    "model.depth={name: weight-tied, depth: 8}", "shallow={}", "jacobian={}", "monitor=0",
)  # fmt: skip
TASKS = {
    "character": ("tinyshakespeare/input.txt.gz", "character"),
    "word": ("ptb", "word"),
}
MODELS: dict[str, tuple[str, ...]] = {"equilibrium": (), "8 layers": UNROLLED}
HALF_STEPS = FixedPointIteration(damping=0.5)
_SECONDS, _WATCHED = "seconds.txt", "watched.csv"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    configuration: TrainingConfiguration
    folder: Path
    model: SequenceModel
    seconds: float

    def batches(self, part: Any = "test", batch: int | None = None) -> list[Batch]:
        run = self.configuration
        data = run.data.open(batch or run.batch, run.length, run.seed)
        return list(data.held_out(part))


def made(task: str, model: str, seed: int, texts: Path, *changes: str) -> Run:
    """The run of a task, model and seed, trained if it has not been."""
    file, level = TASKS[task]
    data = f"data={{name: text-folder, folder: {texts / file}, level: {level}}}"
    run = load(task, [data, f"seed={seed}", *MODELS.get(model, ()), *changes])
    folder = RUNS / f"{task}-{model.replace(' ', '-')}-{seed}"
    kept = folder / _SECONDS
    if not kept.exists():
        start = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        batch = run.data.open(run.batch, run.length, run.seed).training(0)
        watch = [Watch(folder / _WATCHED, batch)] if model == "equilibrium" and seed == 0 else []
        train(run, folder, resume=True, accelerator="cpu", progress=True, callbacks=watch)
        kept.write_text(f"{time.perf_counter() - start}")
    file_of_end = latest(folder)
    assert file_of_end is not None  # for the type checker: the run has ended
    return Run(run, folder, restore(file_of_end).model(), float(kept.read_text()))


@contextmanager
def settling(model: SequenceModel, **changes: Any) -> Iterator[None]:
    """The model with half steps to its equilibrium, and other changes of its depth, for the meantime.

    They find equilibria about which plain iteration swings: eigenvalues of trained cells lie below -1.
    """
    own = model.depth
    assert isinstance(own, Equilibrium)  # for the type checker: only such have one
    model.depth = replace(own, solver=HALF_STEPS, on_failure="accept", **changes)
    try:
        yield
    finally:
        model.depth = own


# --- The table -----------------------------------------------------------------------------------


def language(texts: Path, seeds: Sequence[int], tasks: Sequence[str]) -> None:
    """Perplexity, memory, time, evaluations and residuals of both models, over seeds."""
    rows = []
    for task, model, seed in itertools.product(tasks, MODELS, seeds):
        run = made(task, model, seed, texts)
        found = evaluate(run.model, run.batches())
        settled = found
        if model == "equilibrium":
            with settling(run.model, stopping=Stopping(rtol=1e-3, max_steps=200)):
                settled = evaluate(run.model, run.batches())
        logged = records(run.folder)
        tokens, targets, _ = run.configuration.data.open(
            run.configuration.batch, run.configuration.length, 0
        ).training(0)
        network = run.model.train()
        rows.append(
            {
                "task": task,
                "model": model,
                "seed": seed,
                "parameters": count_parameters(network).total,
                "perplexity": found.perplexity,
                "evaluations": found.evaluations or 8.0,
                "residual": found.residual,
                "unsolved": found.unsolved,
                "adjoint evaluations": _last(logged, "backward evaluations"),
                "adjoint residual": _last(logged, "backward residual"),
                "spectral radius": _last(logged, "spectral radius"),
                "settled perplexity": settled.perplexity,
                "settled evaluations": settled.evaluations or 8.0,
                "settled unsolved": settled.unsolved,
                "MiB": saved_bytes(
                    lambda m=network, x=tokens, y=targets: m.loss(x, y)[0], network.parameters()
                ) / 2**20,
                "seconds per step": run.seconds / run.configuration.steps,
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    _write("language", rows)
    print(table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each task and model, with mean and range over seeds."""
    lines = [
        "| text | model | parameters | test perplexity | evaluations | residual | settled | evaluations "
        "| kept, MiB | s per step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (task, model), group in itertools.groupby(rows, lambda row: (row["task"], row["model"])):
        found = list(group)

        def mean(name: str, found: Any = found) -> float:
            return statistics.mean(row[name] for row in found)

        perplexities = sorted(row["perplexity"] for row in found)
        residual = "–" if not mean("residual") else f"{mean('residual'):.1e}"
        lines.append(
            f"| {task} | {model} | {found[0]['parameters']:,} | {statistics.mean(perplexities):.2f} "
            f"({perplexities[0]:.2f} – {perplexities[-1]:.2f}) | {mean('evaluations'):.1f} | {residual} | "
            f"{mean('settled perplexity'):.2f} | {mean('settled evaluations'):.1f} | "
            f"{mean('MiB'):.1f} | {mean('seconds per step'):.2f} |"
        )
    return "\n".join(lines)


def _last(logged: dict[str, dict[int, float]], name: str) -> float:
    values = logged.get(name)
    return values[max(values)] if values else float("nan")


# --- Figure 2 ------------------------------------------------------------------------------------


class Watch(Callback):
    """Every so many steps: evaluations of both passes that a tolerance of 1e-2 takes on a fixed batch."""

    def __init__(self, file: Path, batch: Batch, every: int = 50) -> None:
        self.file, self.batch, self.every = file, batch, every

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.global_step - 1) % self.every:
            return
        forward, backward = work(pl_module.model, self.batch)
        with self.file.open("a") as opened:
            opened.write(f"{trainer.global_step - 1},{forward},{backward}\n")


def work(model: SequenceModel, batch: Batch) -> tuple[int, int]:
    """Evaluations and adjoint products to a relative residual of 1e-2."""
    was_training, stopping = model.training, Stopping(rtol=1e-2, max_steps=200)
    model.eval()
    try:
        with settling(model, stopping=stopping, gradient=Exact(stopping=stopping)):
            loss, output = model.loss(batch.tokens, batch.targets)
            torch.autograd.grad(loss, next(model.parameters()), allow_unused=True)
        (solution,) = output.solutions
        return solution.evaluations, solution.adjoints[0].evaluations
    finally:
        model.train(was_training)


def figure2(texts: Path, task: str) -> None:
    """Evaluations of both passes over training; residuals by iteration of both trained networks."""
    rows: list[dict[str, Any]] = []
    equilibrium = made(task, "equilibrium", 0, texts)
    for line in (equilibrium.folder / _WATCHED).read_text().splitlines():
        step, forward, backward = map(int, line.split(","))
        rows.append({"curve": "forward", "x": step, "y": forward})
        rows.append({"curve": "backward", "x": step, "y": backward})
    for name in MODELS:
        run = made(task, name, 0, texts)
        for curve, damping in ((name, 1.0), (f"{name}, half steps", HALF_STEPS.damping)):
            for k, residual in enumerate(
                residuals(run.model, run.batches()[4], 60, damping), start=1
            ):
                rows.append({"curve": curve, "x": k, "y": residual})
    _write("figure2", rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for name in ("forward", "backward"):
        _line(left, rows, name)
    left.set_xlabel("training step")
    left.set_ylabel("evaluations to a residual of 1e-2")
    for name in MODELS:
        _line(right, rows, name)
        _line(right, rows, f"{name}, half steps")
    right.set_yscale("log")
    right.set_xlabel("applications of the trained cell")
    right.set_ylabel("relative residual")
    for axes in (left, right):
        axes.legend()
    _save(figure, "paper_figure2")


@torch.no_grad()
def residuals(
    model: SequenceModel, batch: Batch, iterations: int, damping: float = 1.0
) -> list[float]:
    """`‖f(z) − z‖ / ‖z‖` after 1, 2, … steps `z + damping · (f(z) − z)` from zero, over a whole batch."""
    model.eval()
    _, output = model.loss(batch.tokens, batch.targets, depth=1)
    (piece,) = output.pieces
    z, found = damping * piece.value, []  # One layer, from zero.
    for _ in range(iterations):
        move = piece.function(z) - z
        found.append(float(move.norm() / z.norm()))
        z = z + damping * move
    return found


# --- Figure 3 ------------------------------------------------------------------------------------


TOLERANCES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)


def figure3(texts: Path, task: str) -> None:
    """Perplexity on the test text against tolerance, and against the limit on iterations or layers."""
    rows = []
    limits = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    for name in MODELS:
        run = made(task, name, 0, texts)
        batches = run.batches()
        found = list(sweep(run.model, batches, limits=limits))
        if name == "equilibrium":
            with settling(run.model):
                found += sweep(run.model, batches, tolerances=TOLERANCES)
        for kind, value, one in found:
            rows.append(
                {
                    "model": name, "kind": kind, "value": value, "perplexity": one.perplexity,
                    "evaluations": one.evaluations,
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    _write("figure3", rows)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for ax, kind, label in zip(
        axes, ("tolerance", "limit"), ("relative tolerance", "iterations, or layers"), strict=True
    ):
        for name in MODELS:
            points = [
                (r["value"], r["perplexity"])
                for r in rows
                if (r["model"], r["kind"]) == (name, kind)
            ]
            if points:
                ax.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
        ax.set_xscale("log")
        ax.set_xlabel(label)
        ax.legend()
    axes[0].invert_xaxis()
    axes[0].set_ylabel("test perplexity")
    _save(figure, "paper_figure3")


# --- Figure 4 ------------------------------------------------------------------------------------

LENGTHS = (16, 64, 256)
TRELLISNET = (
    "model={name: trellis-net, output: 64, hidden: 96, depth: {name: weight-tied, depth: 40}}",
    "batch=8", "length=32", "steps=300", "shallow={}", "jacobian={}", "monitor=0", "schedule.warm_up=50",
    "optimiser.rate=2e-3",
)  # fmt: skip


def figure4(texts: Path, task: str) -> None:
    """`‖z_{k+1} − z_k‖ / ‖z_k‖` of trained weight-tied networks for several lengths of the sequence."""
    networks = {
        "transformer, 8 layers": made(task, "8 layers", 0, texts),
        "TrellisNet, 40 layers": made(task, "TrellisNet", 0, texts, *TRELLISNET),
    }
    rows: list[dict[str, Any]] = []
    for name, run in networks.items():
        data = run.configuration.data.open(4, max(LENGTHS), 0)
        whole = next(iter(data.held_out("test")))
        for length in LENGTHS:
            batch = Batch(whole.tokens[:, :length], whole.targets[:, :length], first=True)
            for k, residual in enumerate(residuals(run.model, batch, 300), start=1):
                rows.append({"curve": f"{name}: length {length}", "x": k, "y": residual})
    _write("figure4", rows)
    figure, axes = plt.subplots(1, len(networks), figsize=(8, 3.2))
    for ax, name in zip(axes, networks, strict=True):
        for length in LENGTHS:
            points = [(r["x"], r["y"]) for r in rows if r["curve"] == f"{name}: length {length}"]
            ax.plot(*zip(*points, strict=True), label=f"length {length}")
        ax.set_title(name)
        ax.set_yscale("log")
        ax.set_xscale("log")
        ax.set_xlabel("layer k")
        ax.legend()
    axes[0].set_ylabel("‖z_{k+1} − z_k‖ / ‖z_k‖")
    _save(figure, "paper_figure4")


# --- Token by token ------------------------------------------------------------------------------

TOKEN_BY_TOKEN = Stopping(rtol=1e-4, max_steps=200)


@torch.no_grad()
def generation(texts: Path, task: str) -> None:
    """Evaluations of a token that is solved for by itself, from the equilibrium before it and from zero."""
    run = made(task, "equilibrium", 0, texts)
    with settling(run.model, stopping=TOKEN_BY_TOKEN):
        rows = _token_by_token(run)
    _write("generation", rows)
    for row in rows:
        print(row)


def _token_by_token(run: Run) -> list[dict[str, Any]]:
    """How often the cell is evaluated in each way, and how far the predictions are apart."""
    model = run.model.eval()
    tokens = next(iter(run.batches())).tokens[:8]
    whole, output = model.log_probabilities(tokens)
    rows = [
        {"how": "the whole sequence at once", "evaluations": output.evaluations, "difference": 0.0}
    ]
    for how in ("from the equilibrium before", "from zero"):
        memory, start, evaluations, scores = None, None, 0, []
        for t in range(tokens.shape[1]):
            score, output = model.log_probabilities(
                tokens[:, t : t + 1], memory, start=start, keep=tokens.shape[1]
            )
            memory, evaluations = output.memory, evaluations + output.evaluations
            start = output.states[:, -1:] if how == "from the equilibrium before" else None
            scores.append(score)
        difference = float((torch.cat(scores, dim=1) - whole).abs().max())
        rows.append(
            {"how": how, "evaluations": evaluations / tokens.shape[1], "difference": difference}
        )
    return rows


# --- Helpers -------------------------------------------------------------------------------------


def _line(axes: Any, rows: Sequence[dict[str, Any]], curve: str) -> None:
    points = [(row["x"], row["y"]) for row in rows if row["curve"] == curve]
    axes.plot(*zip(*points, strict=True), label=curve)


def _write(name: str, rows: Sequence[dict[str, Any]]) -> None:
    DATA.mkdir(exist_ok=True)
    with (DATA / f"{name}.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _save(figure: Any, name: str) -> None:
    figure.savefig(FIGURES / f"{name}.png", dpi=150)


FURTHER = {
    "figure2": figure2,
    "figure3": figure3,
    "figure4": figure4,
    "generation": generation,
}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("language", *FURTHER))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    plt.style.use(FIGURES / "implicitly.mplstyle")
    if given.what == "language":
        language(given.data, given.seeds, given.tasks)
    else:
        FURTHER[given.what](given.data, given.tasks[0])


if __name__ == "__main__":
    main()
