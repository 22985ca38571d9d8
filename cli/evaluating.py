"""Work of `implicitly evaluate`."""

from __future__ import annotations

import csv as comma_separated
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .exits import model_command

_TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
_LIMITS = (1, 2, 4, 8, 12, 16, 24, 32, 48)
_COLUMNS = (
    "setting",
    "value",
    "perplexity",
    "loss",
    "evaluations",
    "residual",
    "unsolved",
    "seconds",
)


@model_command
def show(
    console: Console,
    run: Path,
    part: Any,
    tolerances: Sequence[float] | None,
    limits: Sequence[int] | None,
    *,
    keep: int | None,
    batch: int | None,
    changes: Sequence[str],
    csv: Path | None,
    figure: Path | None,
    device: str,
    code: Sequence[str] = (),
) -> None:
    """Evaluate and print one table."""
    from ..models import Equilibrium, Stacked, import_code, training
    from ..models.training.checkpoints import check_same_data

    if part not in ("train", "valid", "test"):
        raise training.ConfigurationError(f"--part must be train, valid or test, got {part!r}")
    for source in code:
        import_code(source)
    file, restored = training.find_model(run)
    settings = training.changed(restored.configuration, changes)
    data = restored.batches(settings, batch)
    check_same_data(file, restored, data, "symbols")
    model = restored.model().to(device)
    batches = list(data.held_out(part))
    rows: list[Any] = [("as configured", None, training.evaluate(model, batches, keep=keep))]
    if tolerances is None and limits is None and not isinstance(model.depth, Stacked):
        limits = _LIMITS
        tolerances = _TOLERANCES if isinstance(model.depth, Equilibrium) else ()
    if tolerances or limits:
        rows += training.sweep(
            model, batches, tolerances=tolerances or (), limits=limits or (), keep=keep
        )
    console.print(
        f"{restored.configuration.title}, {restored.step} steps, {part}: {rows[0][2].tokens} tokens",
        soft_wrap=True,
    )
    console.print(_table(rows))
    if csv is not None:
        _write(csv, rows)
    if figure is not None:
        _draw(figure, rows, part)


def _values(setting: str, value: float | None, found: Any) -> tuple[Any, ...]:
    return (
        setting, value, found.perplexity, found.loss, found.evaluations, found.residual,
        found.unsolved, found.seconds,
    )  # fmt: skip


def _table(rows: Sequence[Any]) -> Table:
    table = Table(*_COLUMNS, box=None, header_style="bold")
    for row in rows:
        setting, value, perplexity, loss, evaluations, residual, unsolved, seconds = _values(*row)
        # With a limit the tolerance is 0, which cannot be met.
        share = "" if setting == "limit" else f"{unsolved:.1%}"
        table.add_row(
            setting, "" if value is None else f"{value:g}", f"{perplexity:.5g}", f"{loss:.5g}",
            f"{evaluations:.1f}", f"{residual:.1e}", share, f"{seconds:.1f}",
        )  # fmt: skip
    return table


def _write(file: Path, rows: Sequence[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = comma_separated.writer(opened)
        writer.writerow(_COLUMNS)
        writer.writerows(_values(*row) for row in rows)


def _draw(file: Path, rows: Sequence[Any], part: str) -> None:
    """Perplexity against tolerance and against the limit, side by side."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 3.2), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    for ax, kind, label in (
        (axes[0], "tolerance", "relative tolerance"),
        (axes[1], "limit", "iterations at most"),
    ):
        points = sorted(
            (value, found.perplexity) for setting, value, found in rows if setting == kind
        )
        if points:
            ax.plot(*zip(*points, strict=True), marker="o")
        ax.set_xscale("log", base=10 if kind == "tolerance" else 2)
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].invert_xaxis()
    axes[0].set_ylabel(f"perplexity ({part})")
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file)
