"""Measurement of one cell, in the process that runs it."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems import TestProblem
from .catalogue import Catalogue
from .cell import Cell
from .columns import normalised, said, with_notes
from .judging import outcome_of
from .methods.equation import BudgetSpentError, StudyEquation, Watch
from .methods.method import Attempt, Method
from .processes.values import plain
from .row import row_columns

_MOVED_BY = 0.1
# Causes of an exception that are looked at; a chain of them may be a circle.
_CAUSES = 50


@dataclass(frozen=True)
class Prepared:
    """A cell with its equation and method, ready to run."""

    problem: TestProblem
    method: Method
    equation: StudyEquation
    residual_start: float


def prepare(cell: Cell, catalogue: Catalogue) -> Prepared:
    """The equation and method of a cell.

    Raises:
        StudyError: A name or an option is wrong.
    """
    problem, n = catalogue.problem(cell.problem, cell.seed)
    method = catalogue.method(cell.solver, cell.gradient, cell.adjoint)
    dtype: torch.dtype = getattr(torch, cell.dtype)
    z0 = problem.start(n)
    if cell.seed and not hasattr(problem, "seed"):
        normal = torch.randn(
            z0.shape, generator=torch.Generator().manual_seed(cell.seed), dtype=z0.dtype
        )
        z0 = z0 + _MOVED_BY * (1 + z0.abs()) * normal
    z0 = z0.to(dtype=dtype, device=cell.device)
    start = _largest(problem, z0)
    target = cell.tolerance * (start if cell.relative else 1.0)
    args = problem.args(n, dtype, cell.device) if cell.gradient is not None else ()
    equation = StudyEquation(problem, z0, target, cell.limits.evaluations, args)
    return Prepared(problem, method, equation, start)


def solve(prepared: Prepared) -> tuple[dict[str, Any], Tensor | None]:
    """Run a cell once.

    An exception of the method becomes part of the report, unless it concerns memory. In methods without a
    limit on evaluations, an evaluation beyond the study's limit raises.

    Returns:
        A report that JSON can hold: `claimed`, `failure`, `reason`, and under `columns` those of the row that
        the method gives; and the value, if there is one. Nothing in it has been checked.
    """
    _quiet_globals()
    equation = prepared.equation
    limited = prepared.method.family in ("scipy", "peer")
    watch = Watch(equation.limit if limited else None)
    failure, value = None, None
    try:
        attempt = prepared.method.solve(dataclasses.replace(equation, watch=watch))
    except BaseException as error:  # Of whatever kind: a method must not end the process.
        if out_of_memory(error):
            raise MemoryError(said(error)) from error
        attempt = Attempt(None, False, _status_of(error))
        failure = None if _spent(error) else said(error)
    if not isinstance(attempt, Attempt):
        failure = f"returned {type(attempt).__name__}, not an Attempt"
        attempt = Attempt(None, False, "NO_ATTEMPT")
    if attempt.value is not None:
        try:
            value = plain(attempt.value, equation.z0.shape)
        except Exception as error:  # Of a tensor of another kind.
            failure = str(error) if isinstance(error, ValueError) else said(error)
    return _report(prepared, attempt, watch, failure), value


def judged(prepared: Prepared, report: Mapping[str, Any], value: Tensor | None) -> dict[str, Any]:
    """The columns of a row from `outcome` on: the report, and what a check of the value finds.

    The check is best made in a process in which the method has not run, since that may have changed any
    function.
    """
    _quiet_globals()
    residual, distance, root = None, None, None
    if value is not None:
        value = value.to(prepared.equation.z0.device)
        residual = _largest(prepared.problem, value)
        distance, root = _nearest_root(prepared.problem, value)
    target = prepared.equation.target
    found = {
        **report["columns"],
        "residual": residual,
        "residual_start": prepared.residual_start,
        "target": target,
        "distance": distance,
        "root": root,
    }
    columns, notes = normalised(found, row_columns())
    columns["outcome"] = outcome_of(residual is not None and residual <= target, report)
    text = report["failure"] or report["reason"]
    columns["exception"] = with_notes(text, [*report["notes"], *notes])
    return columns


def timed(prepared: Prepared) -> float:
    """Seconds of one solve, unwatched."""
    _quiet_globals()
    equation = prepared.equation.unwatched
    began = time.perf_counter()
    prepared.method.solve(equation)
    return time.perf_counter() - began


def out_of_memory(error: BaseException) -> bool:
    """True if an exception says that memory could not be allocated."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = said(error).lower()
    return "alloc" in text and ("memory" in text or "bad_alloc" in text)


def _report(
    prepared: Prepared, attempt: Attempt, watch: Watch, failure: str | None
) -> dict[str, Any]:
    history = watch.ended()
    given = {
        "status": attempt.status,
        "residual_reported": attempt.residual,
        "residual_start": prepared.residual_start,
        "target": prepared.equation.target,
        "evaluations": watch.evaluations if attempt.evaluations is None else attempt.evaluations,
        "jvps": 0 if attempt.jvps is None else attempt.jvps,
        "vjps": attempt.vjps,
        "linear_iterations": attempt.linear_iterations,
        "steps": attempt.steps,
        "history_evaluations": tuple(evaluations for evaluations, _ in history),
        "history_residual": tuple(smallest for _, smallest in history),
        "gradient_error": attempt.gradient_error,
    }
    columns, notes = normalised(given, row_columns())
    texts, more = normalised({"exception": attempt.reason}, row_columns())
    try:
        claimed = bool(attempt.claimed)
    except Exception as error:  # Of a tensor of several values.
        claimed, failure = False, failure or f"claimed has no truth value: {said(error)}"
    return {
        "claimed": claimed,
        "failure": failure,
        "reason": texts["exception"],
        "notes": [*notes, *more],
        "columns": columns,
    }


def _largest(problem: TestProblem, z: Tensor) -> float:
    """The largest entry of the residual, from an uncounted evaluation of the problem's function."""
    with torch.no_grad():
        return float(problem.residual(z.clone()).double().abs().max())


def _nearest_root(problem: TestProblem, z: Tensor) -> tuple[float | None, int | None]:
    """Root-mean-square distance to the nearest root; the largest of all systems."""
    known = problem.roots(z.shape[-1])
    if not known or not bool(torch.isfinite(z).all()):
        return None, None
    point = z.double().cpu()
    distances = torch.stack(
        [(point - root.value.double()).square().mean(-1).sqrt().flatten() for root in known]
    )
    nearest, index = distances.min(0)
    system = int(nearest.argmax())
    found = float(nearest[system])
    return (found, int(index[system])) if math.isfinite(found) else (None, None)


def _spent(error: BaseException | None) -> bool:
    """True if an exception comes from the limit on evaluations, even as the cause of others."""
    for _ in range(_CAUSES):
        if error is None:
            return False
        if isinstance(error, BudgetSpentError) or BudgetSpentError.__name__ in said(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _status_of(error: BaseException) -> str:
    return "BUDGET_SPENT" if _spent(error) else type(error).__name__


def _quiet_globals() -> None:
    """Reset global state that an earlier cell may have changed."""
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    np.random.seed(0)  # Libraries draw from the global generator.
    random.seed(0)
