"""`implicitly verify`: import a factory by name, verify its layer, return an exit status."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, cast

import typer

from ..options.options import did_you_mean
from ..verification import as_html, as_json, as_junit
from ..verification import verify as verified
from ..verification.verifying import EFFORTS, Effort
from .exits import VERDICTS


def run(
    target: str,
    *,
    effort: str,
    seed: int,
    time_limit: float | None = None,
    json: Path | None = None,
    junit: Path | None = None,
    html: Path | None = None,
) -> int:
    """Verify the layer of the factory, print the report, and return the exit status.

    Raises:
        typer.BadParameter: The target or the effort is invalid.
    """
    if effort not in EFFORTS:
        raise typer.BadParameter(f"--effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    layer, inputs, *rest = _made(target)
    report = verified(
        layer,
        inputs,
        residual=rest[0] if rest else None,
        seed=seed,
        effort=cast(Effort, effort),
        time_limit=time_limit,
    )
    typer.echo(str(report))
    for path, export in ((json, as_json), (junit, as_junit), (html, as_html)):
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(export(report), encoding="utf-8")
            except OSError as error:
                raise typer.BadParameter(f"{path} cannot be written: {error}") from error
    return VERDICTS[report.verdict.name]


def _made(target: str) -> tuple[Any, ...]:
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise typer.BadParameter(f"expected package.module:factory, got {target!r}")
    sys.path.insert(0, os.getcwd())  # Like `python -m`.
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise typer.BadParameter(f"cannot import {module_name!r}: {error}") from error
    if not hasattr(module, name):
        hint = did_you_mean(name, [known for known in dir(module) if known[0] != "_"])
        raise typer.BadParameter(f"{module_name!r} has no {name!r}{hint}")
    factory = getattr(module, name)
    returned = factory() if callable(factory) else factory
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        raise typer.BadParameter(
            f"{target} must return (layer, inputs) or (layer, inputs, residual), "
            f"got {type(returned).__name__}"
        )
    return returned
