"""Work of `implicitly export`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .exits import model_command


@model_command
def hand_on(console: Console, run: Path, folder: Path, part: Any, *, code: Sequence[str]) -> None:
    """Measure the model, write it, and say how to load it."""
    from ..models import import_code, training
    from ..models.training.checkpoints import check_same_data

    if part not in ("train", "valid", "test", "none"):
        raise training.ConfigurationError(
            f"--part must be train, valid, test or none, got {part!r}"
        )
    for source in code:
        import_code(source)
    file, restored = training.find_model(run)
    measured = {}
    if part != "none":
        data = restored.batches(restored.configuration)
        check_same_data(file, restored, data)
        measured[part] = training.evaluate(restored.model(), data.held_out(part))
    training.save_pretrained(restored, folder, measured)
    for name, found in measured.items():
        console.print(f"{name} loss {found.loss:.6g}, perplexity {found.perplexity:.5g}")
    console.print(f"Written to {folder}; its card is README.md", soft_wrap=True)
    if restored.symbols is not None:
        console.print(f"Use it: implicitly generate {shlex.quote(str(folder))}", soft_wrap=True)
