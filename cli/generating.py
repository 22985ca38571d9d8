"""Work of `implicitly generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from .exits import model_command


@model_command
def write(
    console: Console,
    run: Path,
    prompt: str,
    *,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    device: str,
    code: Sequence[str],
) -> None:
    """Write the prompt and what follows it, symbol by symbol."""
    from ..models import Sampling, import_code, training

    for source in code:
        import_code(source)
    restored = training.find_model(run)[1]
    try:
        pieces = training.generate_text(
            restored,
            prompt,
            length=length,
            sampling=Sampling(temperature, top_k, top_p),
            seed=seed,
            device=device,
        )
    except (training.CheckpointError, training.ConfigurationError):
        raise
    except ValueError as error:
        raise training.ConfigurationError(str(error)) from error
    typer.echo(prompt, nl=False)
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()
