"""`implicitly verify`: import a factory by name, verify its layer, return an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import cast

import typer

from ..files.importing import import_source
from ..options.options import did_you_mean
from ..verification import as_html, as_json, as_junit
from ..verification import verify as verified
from ..verification.requests import Request
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
    request = _made(target)
    try:
        report = verified(
            request.layer,
            request.inputs,
            residual=request.residual,
            tighten=request.tighten,
            seed=seed,
            effort=cast(Effort, effort),
            time_limit=time_limit,
        )
    except (TypeError, ValueError, RuntimeError) as error:  # The arguments that the factory gave.
        raise typer.BadParameter(str(error)) from error
    typer.echo(str(report))
    for path, export in ((json, as_json), (junit, as_junit), (html, as_html)):
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(export(report), encoding="utf-8")
            except OSError as error:
                raise typer.BadParameter(f"{path} cannot be written: {error}") from error
    return VERDICTS[report.verdict.name]


def _made(target: str) -> Request:
    """The request of the factory, which may be named in a module or in a file.

    Raises:
        typer.BadParameter: There is no such factory, it raises, or it returns something else.
    """
    source, colon, name = target.rpartition(":")
    if not (source and colon and name):
        raise typer.BadParameter(
            f"expected package.module:factory or file.py:factory, got {target!r}"
        )
    sys.path.insert(0, os.getcwd())  # Like `python -m`.
    try:
        module = import_source(source)
    except Exception as error:  # The file is the user's, and may raise anything.
        raise typer.BadParameter(
            f"cannot import {source!r}: {type(error).__name__}: {error}"
            if not isinstance(error, ImportError)
            else f"cannot import {source!r}: {error}"
        ) from error
    if not hasattr(module, name):
        hint = did_you_mean(name, [known for known in dir(module) if known[0] != "_"])
        raise typer.BadParameter(f"{source!r} has no {name!r}{hint}")
    factory = getattr(module, name)
    try:
        returned = factory() if callable(factory) else factory
    except Exception as error:  # A factory that fails has made no layer to be judged.
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise typer.BadParameter(
            f"{target} raised {type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        ) from error
    try:
        return Request.of(returned, target)
    except TypeError as error:
        raise typer.BadParameter(str(error)) from error
