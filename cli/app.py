"""Command line: options and their help; other modules do the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..options.libraries import LibraryError
from .completion import configurations
from .exits import ended_by_signals
from .study import app as study

app = typer.Typer(
    name="implicitly",
    help="Functions defined by an equation: solve them, and differentiate the solution exactly.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_MODEL = typer.Argument(help="Give the folder of a run or of an exported model, or a checkpoint.")
_CODE = typer.Option(
    "--code",
    help="Run this file or module first, which registers the run's own model or data; repeat.",
)
app.add_typer(study, name="study")


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"implicitly {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Functions defined by an equation: solve them, and differentiate the solution exactly."""


@app.command()
def demo(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Write the figure and the study to this folder.", file_okay=False
        ),
    ] = Path("build/demo"),
    seed: Annotated[
        int, typer.Option(help="Draw the weights and all samples from this seed.", min=0)
    ] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="Run a small version, which takes a few seconds.")
    ] = False,
) -> None:
    """Fit an equilibrium network to the standard library's text and check its derivatives.

    Solves the fitted layer with four solvers, compares its gradients with finite differences and
    with the unrolled network, trains a DEQ-Transformer beside one of 8 layers, and runs a small study.
    Exits with 1 if a check fails.
    """
    # Torch takes seconds to import; the help does not need it.
    from .demo import run

    raise typer.Exit(run(output, seed=seed, fast=fast))


@app.command()
def verify(
    target: Annotated[
        str,
        typer.Argument(
            help="Give package.module:factory or path/to/file.py:factory; the factory returns what to verify."
        ),
    ],
    effort: Annotated[
        str, typer.Option(help="Choose fast or full: full has more checks.")
    ] = "fast",
    seed: Annotated[int, typer.Option(help="Draw all probes from this seed.", min=0)] = 0,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Stop once the layer's calls have taken so many seconds together.", min=0.01
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the report to this file as JSON.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the report to this file as JUnit XML.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the report to this file as a page.")
    ] = None,
) -> None:
    """Verify the gradients of a layer.

    The factory takes no arguments and returns (layer, inputs) or (layer, inputs, residual). Exits with 0 if
    every gradient is correct, 1 if one is wrong, 3 if the layer's solver has not converged, 4 if it cannot
    be told; 2 is a wrong call of this command.
    """
    from .verify import run

    raise typer.Exit(
        run(
            target, effort=effort, seed=seed, time_limit=time_limit, json=json, junit=junit, html=html
        )
    )  # fmt: skip


@app.command()
def train(
    configuration: Annotated[
        str,
        typer.Argument(
            help="Give a YAML file, or the name of a configuration of the package.",
            autocompletion=configurations,
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a field, as in --set seed=1 --set model.depth.solver=anderson."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the run to this folder, by default build/runs/TITLE."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option("--from", help="Begin with the weights of this run, checkpoint or model."),
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="Train on cpu, gpu, or on what auto finds.")
    ] = "auto",
    devices: Annotated[int, typer.Option(help="Use so many processes or accelerators.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Use so many machines.", min=1)] = 1,
    strategy: Annotated[str, typer.Option(help="Divide the work by auto, ddp or fsdp.")] = "auto",
) -> None:
    """Train a sequence model.

    Writes checkpoints, CSV and TensorBoard records. A run that was killed goes on with --resume, to the same
    result. Exits with 0 at the end of the run, 1 if it diverges, 2 if it cannot be.
    """
    from .training import run

    raise typer.Exit(
        run(
            configuration, changes or [], output, resume=resume, weights=weights,
            accelerator=accelerator, devices=devices, nodes=nodes, strategy=strategy,
        )
    )  # fmt: skip


@app.command()
def evaluate(
    run: Annotated[Path, _MODEL],
    part: Annotated[str, typer.Option(help="Evaluate on valid, test or train.")] = "test",
    tolerances: Annotated[
        list[float] | None,
        typer.Option(
            "--tolerance", help="Evaluate at this relative tolerance; repeat it for several."
        ),
    ] = None,
    limits: Annotated[
        list[int] | None,
        typer.Option(
            "--limit", help="Evaluate with so many iterations or layers; repeat it for several."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(help="Remember so many positions, in place of the model's number.", min=0),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Evaluate so many sequences side by side.", min=1)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a field of the data, as in --set data.folder=elsewhere."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file as CSV.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the table to this file, as PNG, SVG or PDF.")
    ] = None,
    device: Annotated[str, typer.Option(help="Evaluate on cpu or cuda.")] = "cpu",
    code: Annotated[list[str] | None, _CODE] = None,
) -> None:
    """Evaluate a trained model: perplexity against tolerance and against the limit on iterations.

    With neither --tolerance nor --limit, it is evaluated as it was configured and at a range of both.
    """
    from .evaluating import show

    raise typer.Exit(
        show(
            run, part, tolerances, limits, keep=keep, batch=batch, changes=changes or [], csv=csv,
            figure=figure, device=device, code=code or [],
        )
    )  # fmt: skip


@app.command()
def generate(
    run: Annotated[Path, _MODEL],
    prompt: Annotated[str, typer.Option(help="The text before.")] = "\n",
    length: Annotated[int, typer.Option(help="Symbols to generate.", min=0)] = 200,
    temperature: Annotated[
        float, typer.Option(help="Scores are divided by it; 0 for the most probable.", min=0)
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Choose from so many symbols.", min=1)] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose from the fewest symbols of at least this probability."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="Run on cpu or cuda.")] = "cpu",
    code: Annotated[list[str] | None, _CODE] = None,
) -> None:
    """Generate text with a trained model.

    The text appears as it is generated. The same seed gives the same text.
    """
    from .generating import write

    raise typer.Exit(
        write(
            run, prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
            device=device, code=code or [],
        )
    )  # fmt: skip


@app.command()
def export(
    run: Annotated[Path, _MODEL],
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", file_okay=False)],
    part: Annotated[str, typer.Option(help="Measure on valid, test or train; or none.")] = "valid",
    code: Annotated[list[str] | None, _CODE] = None,
) -> None:
    """Write a trained model to a folder, to hand it on: weights, configuration, symbols and a card.

    The card has the loss that is measured now, on the data of the run.
    """
    from .exporting import hand_on

    raise typer.Exit(hand_on(run, folder, part, code=code or []))


def main() -> None:
    """Run the `implicitly` command with the arguments of the process."""
    with ended_by_signals():
        try:
            app()
        except LibraryError as error:
            typer.echo(f"Error: {error}", err=True)
            sys.exit(2)
