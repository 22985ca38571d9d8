"""The command line: options and their help, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .study import app as study

app = typer.Typer(
    name="implicitly",
    help="Functions defined by an equation: solve them, and differentiate the solution exactly.",
    no_args_is_help=True,
    add_completion=False,
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
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Functions defined by an equation: solve them, and differentiate the solution exactly."""


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the figure.", file_okay=False)
    ] = Path("build/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the weights and of all samples.", min=0)] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="A small version that takes a few seconds.")
    ] = False,
) -> None:
    """Fit an equilibrium network to the standard library's text and check its derivatives.

    Solves the fitted layer with four solvers, compares its gradients with finite differences and
    with the unrolled network, prints one table and saves one figure. Exits with 1 if a check fails.
    """
    # Torch takes seconds to import; the help does not need it.
    from .demo import run

    raise typer.Exit(run(output, seed=seed, fast=fast))


@app.command()
def verify(
    target: Annotated[
        str, typer.Argument(help="package.module:factory; the factory returns what to verify.")
    ],
    effort: Annotated[str, typer.Option(help="fast or full.")] = "fast",
    seed: Annotated[int, typer.Option(help="Seed of all probes.", min=0)] = 0,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds that the layer's calls may take together.", min=0.01),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the report as JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
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


def main() -> None:
    """Run the `implicitly` command with the arguments of the process."""
    app()
