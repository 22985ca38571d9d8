"""Work of `implicitly train`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .exits import model_command


@model_command
def run(
    console: Console,
    configuration: str,
    changes: Sequence[str],
    output: Path | None,
    *,
    resume: bool,
    weights: Path | None,
    accelerator: str,
    devices: int,
    nodes: int,
    strategy: Any,
) -> None:
    """Train with a progress bar, and print where the result is."""
    from ..models import training
    from ..models.training.storage import folder_of

    if strategy not in ("auto", "ddp", "fsdp"):
        raise training.ConfigurationError(f"--strategy must be auto, ddp or fsdp, got {strategy!r}")
    wanted = training.load(configuration, changes)
    folder = folder_of(wanted.title, Path("build/runs")) if output is None else output
    result = training.train(
        wanted, folder, resume=resume, weights=weights, accelerator=accelerator, devices=devices, nodes=nodes,
        strategy=strategy, progress=True,
    )  # fmt: skip
    if result.module.global_rank:
        return
    last = {name: result.metrics.get(name) for name in ("train loss", "valid loss")}
    said = ", ".join(f"{name} {value:.6g}" for name, value in last.items() if value is not None)
    console.print(f"{result.steps} steps in {folder}: {said}", soft_wrap=True)
    console.print(f"Evaluate it: implicitly evaluate {shlex.quote(str(folder))}", soft_wrap=True)
