"""Language models at equal parameters, data and steps, and at equal CPU seconds, on one core.

    python docs/results/fair_tables.py --data FOLDER     make the runs that are missing, then the tables;
                                                         words as well with --texts characters words
    python docs/results/fair_tables.py                   the tables from the runs that are there

FOLDER holds `tinyshakespeare` and `ptb`. Each run is a row of docs/results/fair_tables/runs.csv, written when
it ends, so that an interrupted campaign goes on. The tables go into docs/results/sequence-models.md.

Every model has the same number of parameters to 1 %, the same batches in the same order, the same optimiser.
Each tries the same learning rates on the first seed; the one with the least loss on held-out text is its rate
for all seeds and for the runs of equal time. Those have the same CPU seconds of training for all models, by
`time.process_time`, and a learning rate that falls by the share of them that is spent. Test text chooses
nothing.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from implicitly import Exact, PrefixAnderson, Stopping
from implicitly.models import (
    Depth,
    Equilibrium,
    Stacked,
    Transformer,
    TransformerOptions,
    WeightTied,
    count_parameters,
    residual_penalty,
)
from implicitly.models.training import Batch, Batches, Cosine, TextFolder
from implicitly.models.vocabulary import PlainVocabulary
from torch import Tensor, nn

HERE = Path(__file__).parent
ROWS, PAGE = HERE / "fair_tables" / "runs.csv", HERE / "sequence-models.md"
BEGIN, END = "<!-- fair tables: written by fair_tables.py -->", "<!-- end of fair tables -->"
SEEDS, RATES = (0, 1, 2), (3e-3, 1e-2, 3e-2)
BATCH, LENGTH, HEADS, SETTLED = 16, 32, 4, 20


@dataclass(frozen=True)
class Task:
    """A text, the width of the tied cell, the length of its runs, and the batches of held-out text."""

    data: str
    level: Any
    width: int
    steps: int
    seconds: float
    valid: int
    test: int

    def batches(self, texts: Path) -> Batches:
        return TextFolder(str(texts / self.data), self.level).open(BATCH, LENGTH, 0)


TASKS = {
    "characters": Task("tinyshakespeare/input.txt.gz", "character", 64, 400, 6.0, 40, 80),
    "words": Task("ptb", "word", 32, 600, 40.0, 40, 80),
}


def equilibrium(rtol: float = 1e-2, limit: int = 12) -> Equilibrium:
    """As in the configurations `character` and `word`."""
    adjoint = Exact(solver=PrefixAnderson(), stopping=Stopping(rtol=rtol, max_steps=limit))
    return Equilibrium(
        stopping=Stopping(rtol=0.1, rtol_residual=rtol, max_steps=limit),
        gradient=adjoint, checkpoint=False, on_failure="accept",
    )  # fmt: skip


# --- Models --------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer of PyTorch between tied embeddings; its memory is the last state.

    Args:
        kind: `nn.LSTM` or `nn.GRU`.
        vocabulary: Number of tokens.
        width: Features of a state and of an embedding.
    """

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], vocabulary: int, width: int) -> None:
        super().__init__()
        self.vocabulary = PlainVocabulary(vocabulary, width, scale=width**0.5)
        self.layer = kind(width, width, batch_first=True)

    def losses(self, tokens: Tensor, targets: Tensor, memory: Any) -> tuple[Tensor, Any]:
        hidden, state = self.layer(self.vocabulary.embed(tokens), memory)
        detached = state.detach() if isinstance(state, Tensor) else tuple(s.detach() for s in state)
        return self.vocabulary.losses(hidden, targets), detached


def transformer(vocabulary: int, width: int, depth: Depth, inner: int | None = None) -> Transformer:
    """A transformer with the memory of one segment."""
    sizes = {"width": width, "heads": HEADS, "inner": inner or 2 * width, "memory": LENGTH}
    return Transformer(TransformerOptions(vocabulary, depth=depth, **sizes))


def fitting(make: Callable[[int], nn.Module], sizes: Sequence[int], wanted: int) -> nn.Module:
    """The model of the size whose number of parameters is nearest."""
    with torch.device("meta"):
        size = min(sizes, key=lambda size: abs(count_parameters(make(size)).total - wanted))
    return make(size)


def untied(vocabulary: int, width: int, wanted: int) -> nn.Module:
    """Four layers with weights of their own, narrower; `inner` takes up the parameters that are left."""

    def layers(width: int, inner: int) -> nn.Module:
        return transformer(vocabulary, width, Stacked(4), inner)

    with torch.device("meta"):
        narrow = max(
            narrow for narrow in range(HEADS, width, HEADS)
            if count_parameters(layers(narrow, narrow)).total <= wanted
        )  # fmt: skip
    return fitting(partial(layers, narrow), range(narrow, 4 * narrow), wanted)


class Model(NamedTuple):
    """A row of the tables.

    Attributes:
        make: The model, from the number of tokens, the width of the tied cell and the number of parameters.
        shallow: Share of the steps that go through 4 to 8 layers with a residual penalty.
        shallow_seconds: The same share of the CPU seconds, in runs of equal time.
    """

    make: Callable[[int, int, int], nn.Module]
    shallow: float = 0.0
    shallow_seconds: float = 0.0


def tied(depth: Depth) -> Callable[[int, int, int], nn.Module]:
    """Maker of a transformer with one cell."""
    return lambda vocabulary, width, wanted: transformer(vocabulary, width, depth)


def recurrent(kind: Any) -> Callable[[int, int, int], nn.Module]:
    """Maker of a recurrent layer of the width that has the wanted number of parameters."""
    return lambda vocabulary, width, wanted: fitting(
        partial(Recurrent, kind, vocabulary), range(16, 256), wanted
    )


CHECKPOINTED = "tied, 16 layers, checkpointed"
MODELS = {
    "GRU": Model(recurrent(nn.GRU)),
    "LSTM": Model(recurrent(nn.LSTM)),
    "Transformer, 4 layers of their own": Model(untied),
    **{f"tied, {n} layers": Model(tied(WeightTied(n))) for n in (2, 4, 8, 16)},
    CHECKPOINTED: Model(tied(WeightTied(16, checkpoint=True))),
    "equilibrium, 80 % of the steps": Model(tied(equilibrium()), 0.2, 0.12),
    "equilibrium, 15 % of the steps": Model(tied(equilibrium()), 0.85, 0.8),
}


# --- A run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run: of `steps` steps where `seconds` is 0, else of that many CPU seconds."""

    task: str
    model: str
    rate: float
    seed: int
    steps: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, ...]:
        return (self.task, self.model, f"{self.rate:g}", str(self.seed), f"{self.seconds:g}")


def network(run: Run, vocabulary: int) -> nn.Module:
    """The untrained network of a run."""
    width = TASKS[run.task].width
    with torch.device("meta"):
        wanted = count_parameters(transformer(vocabulary, width, WeightTied(1))).total
    torch.manual_seed(run.seed)
    return MODELS[run.model].make(vocabulary, width, wanted)


def one_loss(model: nn.Module, batch: Batch, memory: Any, layers: int | None = None) -> Any:
    """The loss of a batch, the memory after it, and the output of a model of the package."""
    memory = None if batch.first else memory
    if isinstance(model, Transformer):
        loss, output = model.loss(batch.tokens, batch.targets, memory, depth=layers)
        return loss, output.memory, output
    assert isinstance(model, Recurrent)
    losses, memory = model.losses(batch.tokens, batch.targets, memory)
    return losses.mean(), memory, None


def train(run: Run, model: nn.Module, data: Batches) -> dict[str, Any]:
    """Train, and give the number of steps, their CPU seconds, and the work at the equilibrium."""
    kind, schedule = MODELS[run.model], Cosine(warm_up=50, last=0.02)
    optimiser = torch.optim.Adam(model.parameters(), lr=run.rate, betas=(0.9, 0.98))
    shallow_share = kind.shallow_seconds if run.seconds else kind.shallow
    drawn = torch.Generator().manual_seed(run.seed)
    memory, spent, deep, work = None, 0.0, 0, []
    for step in itertools.count():
        share = spent / run.seconds if run.seconds else step / run.steps
        if share >= 1:
            break
        start = time.process_time()
        layers = int(torch.randint(4, 9, (), generator=drawn)) if share < shallow_share else None
        loss, memory, output = one_loss(model, data.training(step), memory, layers)
        total = loss + 0.0003 * residual_penalty(output.pieces[0]) if layers else loss
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = schedule.factor(round(share * 1000), 1000)
        for group in optimiser.param_groups:
            group["lr"] = run.rate * min(factor, (step + 1) / 50)
        optimiser.step()
        spent += time.process_time() - start
        deep += layers is None
        if output is not None and output.solutions:
            solution = output.solutions[0]
            work.append((solution.evaluations, solution.adjoints[0].evaluations))
    means = [statistics.mean(column) for column in zip(*work, strict=True)] or [0.0, 0.0]
    return {
        "steps": step, "cpu_seconds": spent, "at_equilibrium": deep / step if work else 0.0,
        "evaluations": means[0], "adjoint_evaluations": means[1],
    }  # fmt: skip


@torch.no_grad()
def held_out(model: nn.Module, batches: Iterator[Batch], most: int) -> tuple[float, float]:
    """The mean loss of a token in the first batches, and the share of tokens that are not solved."""
    losses, unsolved, memory = [], [], None
    for batch in itertools.islice(batches, most):
        loss, memory, output = one_loss(model, batch, memory)
        losses.append(float(loss))
        if output is not None and output.solutions:
            unsolved.append(float((~output.solutions[0].converged).float().mean()))
    return statistics.mean(losses), statistics.mean(unsolved or [0.0])


def made(run: Run, texts: Path) -> dict[str, Any]:
    """The row of a run."""
    task = TASKS[run.task]
    data = task.batches(texts)
    model = network(run, data.vocabulary)
    trained = train(run, model, data)
    model.eval()
    valid, _ = held_out(model, data.held_out("valid"), task.valid)
    test, unsolved = held_out(model, data.held_out("test"), task.test)
    first = settled = settled_unsolved = 0.0
    if isinstance(model, Transformer) and isinstance(model.depth, Equilibrium):
        first, _ = held_out(model, data.held_out("test"), SETTLED)
        model.depth = equilibrium(1e-3, 300)
        settled, settled_unsolved = held_out(model, data.held_out("test"), SETTLED)
    return {
        "task": run.task, "model": run.model, "rate": f"{run.rate:g}", "seed": run.seed,
        "seconds": f"{run.seconds:g}", "parameters": count_parameters(model).total,
        "valid": valid, "test": test, **trained, "unsolved": unsolved,
        "settled_change": settled - first, "settled_unsolved": settled_unsolved,
    }  # fmt: skip


# --- The campaign --------------------------------------------------------------------------------


class Campaign:
    """Rows of the runs that have ended."""

    def __init__(self, texts: Path | None) -> None:
        self.texts, self.rows = texts, {}
        if ROWS.exists():
            with ROWS.open(newline="", encoding="utf-8") as opened:
                for row in csv.DictReader(opened):
                    self.rows[self._key(row)] = row

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("task", "model", "rate", "seed", "seconds"))

    def make(self, run: Run) -> None:
        """Make a run that is missing."""
        if run.key in self.rows or self.texts is None:
            return
        row = {
            name: f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in made(run, self.texts).items()
        }
        ROWS.parent.mkdir(exist_ok=True)
        new = not ROWS.exists()
        with ROWS.open("a", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, row, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.rows[run.key] = row
        print(
            *(
                row[name]
                for name in (
                    "task",
                    "model",
                    "rate",
                    "seed",
                    "seconds",
                    "valid",
                    "test",
                    "cpu_seconds",
                )
            )
        )

    def found(self, **wanted: Any) -> list[dict[str, Any]]:
        return [
            row for row in self.rows.values()
            if all(row[name] == str(value) for name, value in wanted.items())
        ]  # fmt: skip

    def rate(self, task: str, model: str) -> float:
        """The rate with the least loss on held-out text, on the first seed."""
        model = "tied, 16 layers" if model == CHECKPOINTED else model
        tried = self.found(task=task, model=model, seed=SEEDS[0], seconds=0)
        return float(min(tried, key=lambda row: _loss(row, "valid"))["rate"])


def _loss(row: dict[str, Any], part: str) -> float:
    loss = float(row[part])
    return math.inf if math.isnan(loss) else loss


def campaign(texts: Path, tasks: Sequence[str], seeds: Sequence[int]) -> Campaign:
    """Make all runs that are missing: rates on the first seed, then equal steps and time, seed by seed."""
    runs = Campaign(texts)
    for seed, name in itertools.product(seeds, tasks):
        task = TASKS[name]
        for model, rate in itertools.product(MODELS, RATES if seed == SEEDS[0] else ()):
            if model != CHECKPOINTED:  # The same losses as without checkpoints, up to rounding.
                runs.make(Run(name, model, rate, seed, steps=task.steps))
        for model in MODELS:
            rate = runs.rate(name, model)
            if model != CHECKPOINTED:
                runs.make(Run(name, model, rate, seed, steps=task.steps))
            runs.make(Run(name, model, rate, seed, seconds=task.seconds))
    return runs


# --- The tables ----------------------------------------------------------------------------------


def tables(runs: Campaign) -> str:
    """The tables of the page, the model with the least loss first."""
    parts = []
    for task, settings in TASKS.items():
        rows = [row for model in MODELS if (row := _row(runs, task, model))]
        if not rows:
            continue
        parts.append(
            "\n".join(
                (
                    f"| {task} | parameters | rate | test loss after {settings.steps} steps | CPU s "
                    f"| steps in {settings.seconds:g} CPU s | test loss then |",
                    "|---|--:|--:|--:|--:|--:|--:|",
                    *(line for _, line in sorted(rows)),
                )
            )
        )
    parts.append(
        "\n".join(
            (
                "| | steps at equilibrium | evaluations | adjoint's | unsolved tokens | loss when solved |",
                "|---|--:|--:|--:|--:|--:|",
                *_equilibria(runs),
            )
        )
    )
    return "\n\n".join(parts)


def _row(runs: Campaign, task: str, model: str) -> tuple[float, str] | None:
    """The test loss to sort by, and the line of a model."""
    source = "tied, 16 layers" if model == CHECKPOINTED else model
    if not runs.found(task=task, model=source, seed=SEEDS[0], seconds=0):
        return None
    rate = f"{runs.rate(task, model):g}"
    steps = runs.found(task=task, model=source, rate=rate, seconds=0)
    timed = runs.found(task=task, model=model, rate=rate, seconds=f"{TASKS[task].seconds:g}")
    loss, spread = _spread(steps)
    if model == CHECKPOINTED:
        loss, spread, seconds = loss + 1e-9, "as without checkpoints", "–"
    else:
        seconds = f"{_mean(steps, 'cpu_seconds'):.1f}"
    reached = f"{_mean(timed, 'steps'):.0f} | {_spread(timed)[1]}" if timed else "– | –"
    parameters = f"{int(steps[0]['parameters']):,}"
    return loss, f"| {model} | {parameters} | {rate} | {spread} | {seconds} | {reached} |"


def _equilibria(runs: Campaign) -> Iterator[str]:
    for task, (model, kind) in itertools.product(TASKS, MODELS.items()):
        if not kind.shallow or not runs.found(task=task, model=model, seed=SEEDS[0], seconds=0):
            continue
        rows = runs.found(task=task, model=model, rate=f"{runs.rate(task, model):g}", seconds=0)
        yield (
            f"| {task}, {model} | {_mean(rows, 'at_equilibrium'):.0%} | {_mean(rows, 'evaluations'):.1f} "
            f"| {_mean(rows, 'adjoint_evaluations'):.1f} | {_mean(rows, 'unsolved'):.1%} "
            f"| {_mean(rows, 'settled_change'):+.4f}, {_mean(rows, 'settled_unsolved'):.1%} unsolved |"
        )


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(float(row[name]) for row in rows)


def _spread(rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """The mean test loss, and as text with its range and the number of seeds."""
    losses = sorted(_loss(row, "test") for row in rows)
    mean = statistics.mean(losses)
    if len(losses) == 1:
        return mean, f"{mean:.3f}, 1 seed"
    return mean, f"{mean:.3f} ({losses[0]:.3f} – {losses[-1]:.3f}), {len(losses)} seeds"


def main() -> None:
    """Make the runs if data are given, and write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with tinyshakespeare and ptb")
    parser.add_argument("--texts", nargs="+", default=["characters"], choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = Campaign(None) if given.data is None else campaign(given.data, given.texts, given.seeds)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(runs)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
