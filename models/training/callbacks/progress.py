"""Progress bar with the fit and both solves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class TrainingProgress(Callback):
    """Progress bar with steps, loss, perplexity, and evaluations and residuals of both solves.

    Args:
        title: Name of the run.
        console: Console to print to; `None` for the terminal.

    Examples:
        >>> TrainingProgress("copy-memory").title
        'copy-memory'
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self.title, self._console = title, console
        self._live: Live | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank:
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._bar.add_task(
            self.title, total=trainer.max_steps, completed=trainer.global_step
        )
        self._live = Live(self._bar, console=self._console, refresh_per_second=4)
        self._live.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % getattr(trainer, "log_every_n_steps", 1) == 0:
            self._show(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer)
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _show(self, trainer: Trainer) -> None:
        if self._live is not None:
            self._bar.update(self._task, completed=trainer.global_step)
            self._live.update(Group(self._bar, Text(f"{line(trainer.callback_metrics)}\n")))

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def line(metrics: Mapping[str, Any]) -> str:
    """Text of the bar for some metrics.

    Examples:
        >>> line({"train loss": 2.0, "forward evaluations": 12, "forward residual": 1e-4})
        'loss 2, perplexity 7.39 · forward 12 evaluations, residual 1e-04'
    """
    parts = []
    if "train loss" in metrics:
        loss = float(metrics["train loss"])
        perplexity = math.exp(loss) if loss < 700 else math.inf
        parts.append(f"loss {loss:.4g}, perplexity {perplexity:.3g}")
    for which in ("forward", "backward"):
        if f"{which} evaluations" in metrics:
            parts.append(
                f"{which} {float(metrics[f'{which} evaluations']):.0f} evaluations, residual "
                f"{float(metrics[f'{which} residual']):.0e}"
            )
    if "spectral radius" in metrics:
        parts.append(f"spectral radius {float(metrics['spectral radius']):.2f}")
    if "valid loss" in metrics:
        loss = float(metrics["valid loss"])
        parts.append(f"valid loss {loss:.4g}, perplexity {math.exp(min(loss, 700)):.4g}")
    return " · ".join(parts)
